package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/signetbus/signet/signing"
)

// maxHead is how much of the beginning of a file is kept, to say what is wrong with it.
const maxHead = 16 << 10

// keptFile is evidence that was kept outside: it may be large, and what is damaged in it is
// said, so that nobody is led to write over it.
type keptFile struct {
	f    *os.File
	in   io.Reader   // f, within the context of the verb that reads
	stop func() bool // forgets that context
	head []byte
}

// openKept opens a file, or a pipe. A device may have no end.
func openKept(ctx context.Context, name string) (*keptFile, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if t := info.Mode().Type(); t != 0 && t != fs.ModeNamedPipe {
		return nil, &usageError{msg: name + " is neither a file nor a pipe"}
	}
	f, err := openIn(ctx, name)
	if err != nil {
		return nil, err
	}
	// A pipe may be silent: the end of ctx ends a Read of it that waits. Files have no
	// deadline, and need none.
	stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Now()) })
	return &keptFile{f: f, in: &interruptible{ctx, f}, stop: stop}, nil
}

// openEvidence is openKept, and standard input for "-".
func openEvidence(ctx context.Context, a *app, name string) (io.ReadCloser, error) {
	if name == "-" {
		return io.NopCloser(&interruptible{ctx, a.stdin}), nil
	}
	return openKept(ctx, name)
}

// openIn is os.Open within ctx: that of a named pipe waits for whoever writes.
func openIn(ctx context.Context, name string) (*os.File, error) {
	type opened struct {
		f   *os.File
		err error
	}
	done := make(chan opened, 1)
	go func() {
		f, err := os.Open(name)
		done <- opened{f, err}
	}()
	select {
	case o := <-done:
		return o.f, o.err
	case <-ctx.Done(): // the process ends soon, and the open with it
		return nil, context.Cause(ctx)
	}
}

func (k *keptFile) Read(p []byte) (int, error) {
	n, err := k.in.Read(p)
	k.head = append(k.head, p[:min(n, maxHead-len(k.head))]...)
	return n, err
}

func (k *keptFile) Close() error {
	k.stop()
	return k.f.Close()
}

// boundedLines calls do with each line of r, which is valid until do returns. One of more than
// most bytes is passed over: a file without line ends is not held in memory.
func boundedLines(r io.Reader, most int, do func(line []byte)) error {
	in := bufio.NewReaderSize(r, 64<<10)
	var line []byte
	for long := false; ; {
		part, err := in.ReadSlice('\n')
		end := errors.Is(err, io.EOF)
		if long = long || len(line)+len(part) > most; long {
			line = line[:0]
		} else {
			line = append(line, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil && !end:
			return err
		case !long && len(line) > 0:
			do(line)
		}
		if end {
			return nil
		}
		line, long = line[:0], false
	}
}

// noCheckpoints is the error of a file from which no checkpoint can be read.
func noCheckpoints(file string, head []byte) error {
	what, fix := damage(file, head)
	if what == "" {
		return &usageError{msg: file + " holds no checkpoints", fix: "signet log checkpoint prints one, checkpoints.sink of the configuration has them written"}
	}
	if fix == "" {
		fix = "keep it, and look for another copy"
	}
	return &usageError{msg: file + " holds no checkpoints that can be read: " + what, fix: fix}
}

// damage says what has become of a checkpoint; nothing where head never was one. No fix of it
// writes to the file.
func damage(file string, head []byte) (what, fix string) {
	origin := signing.LogOriginPrefix
	anyVersion := strings.TrimRight(origin, "1/")
	at := bytes.LastIndex(head, []byte(origin))
	name := quoted(file)
	switch rest := head[max(at, 0):]; {
	case len(head) == 0:
		return "it is empty", ""
	case bytes.HasPrefix(head, []byte("\xef\xbb\xbf")):
		return "it begins with a byte order mark, which no broker writes", "keep it, and give a copy without: tail -c +4 " + name + " > COPY"
	case bytes.HasPrefix(head, []byte("\xff\xfe")), bytes.HasPrefix(head, []byte("\xfe\xff")):
		return "it is UTF-16, checkpoints are UTF-8", "keep it, and give a copy: iconv -f UTF-16 -t UTF-8 " + name + " > COPY"
	case at >= 0 && bytes.HasPrefix(bytes.TrimSpace(head), []byte("{")):
		return "it is the JSON of signet log checkpoint -o json", "keep it, and take the checkpoint out of it: jq -j .checkpoint " + name + " > COPY"
	case at >= 0 && bytes.Contains(rest, []byte("\r\n")):
		return "its lines end as those of Windows do", `keep it, and give a copy: tr -d '\r' < ` + name + " > COPY"
	case at >= 0 && len(head) < maxHead && bytes.Count(rest, []byte("\n")) < 8:
		return "the last checkpoint in it is cut off: it has eight lines, each with its line end", ""
	case at >= 0:
		return "its lines were altered: they are not in the one form of a checkpoint", ""
	}
	if i := bytes.Index(head, []byte(anyVersion)); i >= 0 && (i == 0 || head[i-1] == '\n') {
		line, _, _ := strings.Cut(string(head[i:]), "\n")
		version, _, ok := strings.Cut(strings.TrimPrefix(line, anyVersion), "/")
		if ok && len(version) < 8 {
			return fmt.Sprintf("its version is v%s, and this signet reads v1", version), "a newer signet; keep the file"
		}
	}
	return "", ""
}

// quoted is a file name as a shell takes it; clean for a terminal.
func quoted(name string) string {
	for i := range len(name) {
		if c := name[i]; c < utf8.RuneSelf && !strings.ContainsRune("._-/+:@%,", rune(c)) && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			return "'" + strings.ReplaceAll(clean(name), "'", `'\''`) + "'"
		}
	}
	return clean(name)
}

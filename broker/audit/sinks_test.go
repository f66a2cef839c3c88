package audit

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/signetbus/signet/internal/auditlog"
)

func TestFileSinkRotates(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	s, err := NewFileSink(path, 100)
	if err != nil {
		t.Fatal(err)
	}
	var want bytes.Buffer
	for i := range 10 {
		line := []byte(strings.Repeat(strconv.Itoa(i), 40) + "\n")
		want.Write(line)
		if err := s.Write(line); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(path + "*")
	if err != nil || len(files) != 5 {
		t.Fatalf("%v %v", files, err)
	}
	var got []byte
	for _, f := range append(files[1:], files[0]) { // by time, the current one last
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, b...)
	}
	if !bytes.Equal(got, want.Bytes()) {
		t.Errorf("got %q", got)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
}

func TestSyslogForms(t *testing.T) {
	form := regexp.MustCompile(`^<110>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z n1 signet \d+ audit - \{"v":1\}$`)
	batch := []byte("{\"v\":1}\n{\"v\":1}\n")
	send := func(t *testing.T, address string) {
		s, err := NewSyslogSink(address, "n1")
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.Write(batch), s.Close()); err != nil {
			t.Fatal(err)
		}
	}
	for _, network := range []string{"udp", "unixgram"} {
		t.Run(network, func(t *testing.T) {
			target, address := "127.0.0.1:0", ""
			if network == "unixgram" {
				target = filepath.Join(t.TempDir(), "log")
				address = "unix://" + target
			}
			c, err := net.ListenPacket(network, target)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if address == "" {
				address = "udp://" + c.LocalAddr().String()
			}
			send(t, address)
			b := make([]byte, 4096)
			for range 2 {
				_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
				n, _, err := c.ReadFrom(b)
				if err != nil || !form.Match(b[:n]) {
					t.Fatalf("%q %v", b[:n], err)
				}
			}
		})
	}
	t.Run("tcp", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		send(t, "tcp://"+l.Addr().String())
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		in := bufio.NewReader(c)
		for range 2 {
			length, err := in.ReadString(' ')
			if err != nil {
				t.Fatal(err)
			}
			n, err := strconv.Atoi(strings.TrimSpace(length))
			if err != nil {
				t.Fatal(err)
			}
			m := make([]byte, n)
			if _, err := io.ReadFull(in, m); err != nil || !form.Match(m) {
				t.Fatalf("%q %v", m, err)
			}
		}
	})
	for _, bad := range []string{"", "udp://host", "udp://:514", "http://h:1", "unix://relative", "/dev/log", "tcp://h:1/x"} {
		if _, err := NewSyslogSink(bad, "n1"); !errors.Is(err, ErrSink) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// broken fails until it is mended.
type broken struct {
	WriterSink
	fail bool
}

func (b *broken) Write(p []byte) error {
	if b.fail {
		return errors.New("no space left")
	}
	return b.WriterSink.Write(p)
}

// A sink that fails raises an alarm and stops nothing else; what the others have is
// the trail, verifiable.
func TestSinksOfAJournal(t *testing.T) {
	r := newJournalRig(t, 16<<20)
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	file, err := NewFileSink(path, 0)
	r.must(err)
	bad := &broken{WriterSink: *NewWriterSink("bad", io.Discard), fail: true}
	j := r.open(func(cfg *JournalConfig) { cfg.Sinks = []Sink{bad, file} })
	j.Attach(r.stream)
	for i := range 3 {
		r.must(j.Keep(t.Context(), login(i)))
	}
	r.settle(j)
	until(t, "the alarm", func() bool { return j.Stats().SinkErrors["bad"] > 0 })
	if err := j.Health(); err == nil || !strings.Contains(err.Error(), "sink bad") {
		t.Errorf("%v", err)
	}
	r.close(j)
	b, err := os.ReadFile(path)
	r.must(err)
	v := auditlog.NewVerifier("shop", r.ring)
	var batch []byte
	for line := range bytes.Lines(b) {
		if batch = append(batch, line...); bytes.HasPrefix(line, []byte(`{"payloadType"`)) {
			v.Batch(0, batch)
			batch = nil
		}
	}
	if report := v.Finish(); !report.OK || report.Records != 4 {
		t.Errorf("%+v", report)
	}
}

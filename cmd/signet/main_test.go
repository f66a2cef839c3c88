package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nkeys"
	"github.com/spf13/cobra"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing/keyring"
)

// signet runs the command in this process.
func signet(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	t.Setenv("SIGNET_HOME", t.TempDir())
	var out, errOut bytes.Buffer
	code = run(args, strings.NewReader(""), &out, &errOut, os.Getenv)
	return code, out.String(), errOut.String()
}

func walk(cmd *cobra.Command, f func(*cobra.Command)) {
	f(cmd)
	for _, c := range cmd.Commands() {
		walk(c, f)
	}
}

func tree() *cobra.Command { return (&app{getenv: os.Getenv}).rootCommand() }

func TestHelpFitsOneScreen(t *testing.T) {
	code, out, _ := signet(t, "--help")
	lines := strings.Split(strings.TrimRight(out, "\n"), "\n")
	if code != 0 || len(lines) > 24 {
		t.Errorf("exit %d, %d lines, want at most 24", code, len(lines))
	}
	for _, l := range lines {
		if len(l) > 80 {
			t.Errorf("%d columns, want at most 80: %s", len(l), l)
		}
	}
}

func TestEveryVerbIsInAGroup(t *testing.T) {
	var grouped []string
	for _, g := range groups {
		for _, line := range g.verbs {
			grouped = append(grouped, strings.Split(line, "|")...)
		}
	}
	for _, c := range tree().Commands() {
		if c.Runnable() && c.Name() != "help" && !slices.Contains(grouped, c.Name()) {
			t.Errorf("%s is in no group of the help", c.Name())
		}
	}
}

func TestEveryVerbHasAnExample(t *testing.T) {
	walk(tree(), func(c *cobra.Command) {
		if c.Runnable() && c.Name() != "help" && (c.Short == "" || !strings.Contains(c.Example, "signet ")) {
			t.Errorf("%s has no short text or no example", c.CommandPath())
		}
	})
}

// The page has every verb and every flag, and no flag that is gone.
func TestDocsNameEveryVerbAndFlag(t *testing.T) {
	page, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(page)
	walk(tree(), func(c *cobra.Command) {
		if !c.Runnable() || c.HasAvailableSubCommands() || c.Name() == "help" {
			return
		}
		_, section, ok := strings.Cut(text, "\n### "+c.CommandPath()+"\n")
		if !ok {
			t.Errorf("docs/cli.md has no section %q", c.CommandPath())
			return
		}
		section, _, _ = strings.Cut(section, "\n##")
		for line := range strings.SplitSeq(c.LocalNonPersistentFlags().FlagUsages(), "\n") {
			i := strings.Index(line, "--")
			if i < 0 {
				continue
			}
			if name := strings.Fields(line[i:])[0]; name != "--help" && !strings.Contains(section, "`"+name) {
				t.Errorf("docs/cli.md, %s: flag %s is missing", c.CommandPath(), name)
			}
		}
		if !strings.Contains(section, "\n    ") {
			t.Errorf("docs/cli.md, %s: no example", c.CommandPath())
		}
	})
}

func TestClean(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"plain", "orders.created ünïcode ✓", "orders.created ünïcode ✓"},
		{"escape sequence", "a\x1b[31mb", `a\x1b[31mb`},
		{"line end", "a\nb", `a\nb`},
		{"right to left override", "a\u202eb", `a\u202eb`},
		{"not UTF-8", "a\xffb", `a\xffb`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := clean(tt.in); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestPlainNamesNoPackage(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"at the start", "tlog: no proof", "no proof"},
		{"within", "event 3: signing: tlog: no proof: EOF", "event 3: no proof: EOF"},
		{"on each line", "client: one\nbroker: two", "one\ntwo"},
		{"a flag", "--payload: no file", "--payload: no file"},
		{"words of users", "policy: schema: ca: keyring: no file", "policy: schema: ca: keyring: no file"},
		{"the end of a word", "the broker: gone", "the broker: gone"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := plain(tt.in); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestFillFix(t *testing.T) {
	for _, tt := range []struct{ name, fix, want string }{
		{"all", "signet policy can-i publish SUBJECT --as PRINCIPAL", "signet policy can-i publish 'a.>' --as app"},
		{"ref", "signet dlq show REF", "signet dlq show r1"},
		{"none", "check the name", "check the name"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := fillFix(tt.fix, "a.>", "demo/app", "r1"); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestEachLine(t *testing.T) {
	long := strings.Repeat("x", 200_000)
	for _, tt := range []struct {
		name, in string
		want     []string
	}{
		{"empty", "", nil},
		{"no end", "a\nb", []string{"a", "b"}},
		{"crlf and blank", "a\r\n\nb\n", []string{"a", "", "b"}},
		{"longer than the buffer", long + "\nb", []string{long, "b"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			err := eachLine(strings.NewReader(tt.in), func(l []byte) bool { got = append(got, string(l)); return true })
			if err != nil || !slices.Equal(got, tt.want) {
				t.Errorf("got %d lines, %v, want %d", len(got), err, len(tt.want))
			}
		})
	}
	if err := eachLine(strings.NewReader(strings.Repeat("x", maxEventBytes+10)), func([]byte) bool { return true }); err == nil {
		t.Error("a line over the limit passed")
	}
}

// A gate in handshake mode auto may speak before it has seen the first bytes of
// TLS; the command tries again before it gives up.
func TestConnectTriesAgainAfterPlainText(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var accepted atomic.Int32
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted.Add(1)
			_, _ = io.WriteString(c, "INFO {}\r\n")
			_, _ = c.Read(make([]byte, 4096)) // the hello; unread bytes would reset the connection
			_ = c.Close()
		}
	}()
	dir := t.TempDir()
	seed := filepath.Join(dir, "user.nk")
	if _, err := newSeed(seed, nkeys.CreateUser); err != nil {
		t.Fatal(err)
	}
	root, err := newSeed(filepath.Join(dir, "root.seed"), nkeys.CreateOperator)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("SIGNET_HOME", dir)
	if err := client.SaveContext(&client.Context{Name: "c", URL: "tls://" + l.Addr().String(), NkeySeedFile: seed, RootKey: root}); err != nil {
		t.Fatal(err)
	}
	var out, errOut bytes.Buffer
	code := run([]string{"status", "--context", "c"}, strings.NewReader(""), &out, &errOut, os.Getenv)
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	<-done
	if code != exitUnreachable || accepted.Load() != 4 {
		t.Errorf("exit code %d after %d connections, want %d after %d\n%s", code, accepted.Load(), exitUnreachable, 4, errOut.String())
	}
}

func TestExitCodes(t *testing.T) {
	refusal := func(class wire.Class, code int) error { return &client.Error{Class: string(class), Code: code} }
	for _, tt := range []struct {
		name string
		err  error
		want int
	}{
		{"none", nil, 0},
		{"other", errors.New("x"), 1},
		{"usage", &usageError{msg: "x"}, 2},
		{"missing file", fmt.Errorf("x: %w", fs.ErrNotExist), 2},
		{"option", fmt.Errorf("%w: x", client.ErrInvalidOption), 2},
		{"denied", refusal(wire.ClassPermissionDenied, 40101), 3},
		{"credential", refusal(wire.ClassUnauthenticated, 0), 3},
		{"rate", refusal(wire.ClassRateLimited, 40500), 3},
		{"malformed, by the broker", refusal(wire.ClassMalformed, 40200), 3},
		{"malformed, before it was sent", refusal(wire.ClassMalformed, 0), 2},
		{"not found", refusal(wire.ClassNotFound, 40700), 1},
		{"internal", refusal(wire.ClassInternal, 40990), 1},
		{"unavailable", refusal(wire.ClassUnavailable, 40900), 4},
		{"wrong root", &client.Error{Class: string(wire.ClassUnavailable), Err: fmt.Errorf("%w: %w", client.ErrKeyring, keyring.ErrBadSignature)}, 3},
		{"space is back", fmt.Errorf("x: %w", broker.ErrSpaceBack), 75},
		{"interrupted", fmt.Errorf("x: %w", errInterrupted), 130},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := exitCode(tt.err); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}

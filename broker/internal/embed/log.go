package embed

import (
	"fmt"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/nats-io/nats-server/v2/server"
)

const maxLogLine = 512

// logger hands nats-server's log lines on. nats-server passes message bytes to
// its log in four places: trace lines (dropped), malformed API requests (byte
// slice arguments, replaced by their length), and parser and JSON errors that
// quote what they choked on (see quoting).
type logger struct {
	sink  func(level, msg string)
	debug bool
	fatal chan error // buffered, 1: the first fatal error

	unreached atomic.Int64 // unix nanoseconds of the last line about a route that could not be dialled
}

// unreachedEvery is between two lines about routes that cannot be dialled: nats-server
// writes several a second while a node is down.
const unreachedEvery = 10 * time.Second

// quoting lists the lines, known by text, that quote a client after where.
var quoting = []struct{ text, where string }{
	{"parser ERROR", "proto="},
	{"Invalid JetStream request '", "':"},
}

var _ server.Logger = (*logger)(nil)

func newLogger(sink func(level, msg string), debug bool) *logger {
	if sink == nil {
		sink = func(string, string) {}
	}
	return &logger{sink: sink, debug: debug, fatal: make(chan error, 1)}
}

func (l *logger) Noticef(format string, v ...any) { l.sink(LevelInfo, line(format, v)) }
func (l *logger) Warnf(format string, v ...any) {
	// Our configuration verifies routes itself (ca.RouteConfig), which the server cannot see.
	if strings.HasPrefix(format, "TLS certificate chain and hostname of solicited routes will not be verified") {
		return
	}
	l.sink(LevelWarn, line(format, v))
}

func (l *logger) Errorf(format string, v ...any) {
	if strings.HasPrefix(format, "Error trying to connect to route") {
		now, last := time.Now().UnixNano(), l.unreached.Load()
		if now-last < int64(unreachedEvery) || !l.unreached.CompareAndSwap(last, now) {
			return
		}
	}
	l.sink(LevelError, line(format, v))
}

// Fatalf keeps the first error for Start or for the goroutine that watches the
// server; the process is not ours to end.
func (l *logger) Fatalf(format string, v ...any) {
	msg := line(format, v)
	l.sink(LevelError, msg)
	select {
	case l.fatal <- fmt.Errorf("%w: %s", ErrServer, msg):
	default:
	}
}

func (l *logger) Debugf(format string, v ...any) {
	if l.debug {
		l.sink(LevelDebug, line(format, v))
	}
}

func (l *logger) Tracef(string, ...any) {}

func line(format string, v []any) string {
	args := make([]any, len(v))
	for i, a := range v {
		if b, ok := a.([]byte); ok {
			a = fmt.Sprintf("(%d bytes)", len(b))
		}
		args[i] = a
	}
	msg := fmt.Sprintf(format, args...)
	for _, mark := range quoting {
		if i := strings.Index(msg, mark.where); strings.Contains(msg, mark.text) && i >= 0 {
			msg = msg[:i+len(mark.where)] + "(cut)"
		}
	}
	if len(msg) > maxLogLine {
		msg = msg[:maxLogLine] + "..."
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(msg, "?"))
}

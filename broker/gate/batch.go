package gate

import (
	"io"
	"sync"
	"time"

	"github.com/signetbus/signet/broker/admission"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

// Fixed frames.
var (
	okFrame   = []byte("+OK\r\n")
	pingFrame = []byte("PING\r\n")
	pongFrame = []byte("PONG\r\n")
)

// keepScratch is how many bytes a connection keeps between batches.
const keepScratch = 16 << 10

// batch is what happens between one read and the write that follows it. Only the
// reader uses it.
type batch struct {
	*conn
	principal *policy.Principal // whose session admission is
	admission *admission.Session
	now       time.Time
	taken     int           // bytes of the window that are done
	waited    time.Duration // spent on limits that say wait
	messages  uint64
	rejected  admission.Rejection // of the refusal that is being answered, if admission's

	publish admission.Publish
	headers wire.Headers
	answers []byte // frames for the client
	scratch []byte // reply subjects; grows only, so that views stay valid until the flush
	frame   []byte // one frame under construction
	mapper  func(string) (string, bool)
}

// upPool holds buffers for one upstream write.
var upPool = sync.Pool{New: func() any { b := make([]byte, 0, largeBuffer); return &b }}

// start prepares for the first batch.
func (b *batch) start(c *conn) {
	b.conn = c
	b.mapper = b.mapInbox
	b.refresh()
}

// refresh takes over a principal that Reload has changed.
func (b *batch) refresh() {
	p := b.conn.principal.Load()
	if p == b.principal {
		return
	}
	first := b.principal == nil
	b.principal = p
	b.admission = b.gate.deps.Admission(p)
	if !first {
		// A SUB that was judged by the old policy while Reload looked at the table.
		b.recheckSubscriptions(p)
	}
}

// process handles every whole operation in the window as one batch.
func (b *batch) process() error {
	b.taken = 0
	buf := b.in.unread()
	if len(buf) == 0 || len(buf) < b.parse.need {
		return nil
	}
	b.refresh()
	b.waited = 0
	b.begin()
	var failed error
	var cmd command
	for b.taken < len(buf) && failed == nil {
		n, err := b.parse.next(buf[b.taken:], &cmd)
		if err != nil {
			failed = &fatal{err: err, refusal: violation(err)}
			break
		}
		if n == 0 {
			break
		}
		b.taken += n
		failed = b.handle(&cmd)
	}
	// What came before a violation counts.
	if err := b.flush(); err != nil && failed == nil {
		failed = err
	}
	b.in.r += b.taken
	return failed
}

func (b *batch) begin() {
	b.now = time.Now()
	b.admission.Begin(b.now)
}

// violation is the audit record of a protocol error.
func violation(err error) *wire.Refusal {
	code := wire.CodeProtocolViolation
	if err == errPayload { //nolint:errorlint // a sentinel of this package, never wrapped
		code = wire.CodePayloadTooLarge
	}
	return wire.Refuse(code, "protocol", err.Error())
}

func (b *batch) handle(cmd *command) error {
	switch cmd.verb {
	case verbPub:
		return b.handlePublish(cmd)
	case verbSub:
		b.subscribe(cmd)
	case verbUnsub:
		b.unsubscribe(cmd)
	case verbPing:
		b.admission.Frame(pingFrame)
	case verbPong:
		b.admission.Frame(pongFrame)
	case verbOK:
	case verbErr:
		return io.EOF // as nats-server: a client that reports an error is done
	default:
		return &fatal{err: errArguments, refusal: wire.Refuse(wire.CodeProtocolViolation, "connect", "a second CONNECT")}
	}
	return nil
}

// ok answers an operation of a verbose client.
func (b *batch) ok() {
	if b.opts.Verbose {
		b.answers = append(b.answers, okFrame...)
	}
}

// flush ends the batch: the answers go to the client first, so that a refusal is
// there before the PONG to a PING that followed it; then everything that was
// accepted goes to the server in one write.
func (b *batch) flush() error {
	err := b.down.write(b.answers)
	out := upPool.Get().(*[]byte)
	*out = b.admission.Flush((*out)[:0])
	b.gate.counters.messages.Add(b.messages)
	b.messages = 0
	if e := b.up.write(*out); e != nil && err == nil {
		err = e
	}
	if cap(*out) <= 4*largeBuffer {
		upPool.Put(out)
	}
	b.publish = admission.Publish{}
	b.answers = reset(b.answers)
	b.scratch = reset(b.scratch)
	b.frame = reset(b.frame)
	return err
}

func reset(b []byte) []byte {
	if cap(b) > keepScratch {
		return nil
	}
	return b[:0]
}

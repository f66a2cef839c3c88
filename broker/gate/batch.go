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
	principal *policy.Principal // whose session admission is
	admission *admission.Session
	now       time.Time
	taken     int           // bytes of the window that are done
	waited    time.Duration // spent on limits that say wait
	messages  uint64

	publish admission.Publish
	headers wire.Headers
	answers []byte // frames for the client
	scratch []byte // reply subjects; grows only, so that views stay valid until the flush
	frame   []byte // one frame under construction
	mapper  func(string) (string, bool)
}

// upPool holds buffers for one upstream write.
var upPool = sync.Pool{New: func() any { b := make([]byte, 0, largeBuffer); return &b }}

// startBatches prepares for the first batch.
func (c *conn) startBatches() error {
	c.batch.mapper = c.mapInbox
	c.refresh()
	return nil
}

// refresh takes over a principal that Reload has changed.
func (c *conn) refresh() {
	p := c.principal.Load()
	if p == c.batch.principal {
		return
	}
	first := c.batch.principal == nil
	c.batch.principal = p
	c.batch.admission = c.gate.deps.Admission(p)
	if !first {
		// A SUB that was judged by the old policy while Reload looked at the table.
		c.recheckSubscriptions(p)
	}
}

// process handles every whole operation in the window as one batch.
func (c *conn) process() error {
	b := &c.batch
	b.taken = 0
	buf := c.in.unread()
	if len(buf) == 0 || len(buf) < c.parse.need {
		return nil
	}
	c.refresh()
	b.waited = 0
	b.begin()
	var failed error
	var cmd command
	for b.taken < len(buf) && failed == nil {
		n, err := c.parse.next(buf[b.taken:], &cmd)
		if err != nil {
			failed = &fatal{err: err, refusal: violation(err)}
			break
		}
		if n == 0 {
			break
		}
		b.taken += n
		failed = c.handle(&cmd)
	}
	// What came before a violation counts.
	if err := c.flush(); err != nil && failed == nil {
		failed = err
	}
	c.in.r += b.taken
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

func (c *conn) handle(cmd *command) error {
	switch cmd.verb {
	case verbPub:
		return c.handlePublish(cmd)
	case verbSub:
		c.subscribe(cmd)
	case verbUnsub:
		c.unsubscribe(cmd)
	case verbPing:
		c.batch.admission.Frame(pingFrame)
	case verbPong:
		c.batch.admission.Frame(pongFrame)
	case verbOK:
	case verbErr:
		return io.EOF // as nats-server: a client that reports an error is done
	default:
		return &fatal{err: errArguments, refusal: wire.Refuse(wire.CodeProtocolViolation, "connect", "a second CONNECT")}
	}
	return nil
}

// ok answers an operation of a verbose client.
func (c *conn) ok() {
	if c.opts.Verbose {
		c.batch.answers = append(c.batch.answers, okFrame...)
	}
}

// flush ends the batch: the answers go to the client first, so that a refusal is
// there before the PONG to a PING that followed it; then everything that was
// accepted goes to the server in one write.
func (c *conn) flush() error {
	b := &c.batch
	err := c.down.write(b.answers)
	out := upPool.Get().(*[]byte)
	*out = b.admission.Flush((*out)[:0])
	c.gate.counters.messages.Add(b.messages)
	b.messages = 0
	if e := c.up.write(*out); e != nil && err == nil {
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

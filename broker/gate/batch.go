package gate

import (
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

// batch gathers what the operations between one read and the write that follows it
// lead to: answers for the client, and frames for the server, which stand in the
// admission session until the flush. refuse.go has the answers to refusals. Only the
// reader uses it.
type batch struct {
	s         *session
	counters  *counters
	explain   bool              // policy internals may be in answers
	principal *policy.Principal // whose session admission is
	admission *admission.Session
	renewals  uint64    // of the access, when admission was made
	refresh   func()    // takes over what Reload has changed
	now       time.Time // of begin

	failed   error // of the first flush that failed; nothing is written after it
	messages uint64
	refusals int          // since the last pause for them
	answers  []byte       // frames for the client
	scratch  []byte       // reply subjects; grows only, so that views stay valid until the flush
	frame    []byte       // one frame under construction
	headers  wire.Headers // of the publish that is being judged
}

// upPool holds buffers for one upstream write.
var upPool = sync.Pool{New: func() any { b := make([]byte, 0, largeBuffer); return &b }}

// begin starts a batch, or goes on with one after a flush in its middle.
func (b *batch) begin() {
	b.now = time.Now()
	b.admission.Begin(b.now)
}

// resume begins again after a wait in the middle of a batch: what follows is judged
// by the policy that is in force now.
func (b *batch) resume() {
	b.refresh()
	b.begin()
}

// upstreamInbox maps an inbox into the scratch, where it stays valid until the
// flush: when the scratch grows, earlier views keep its old array.
func (b *batch) upstreamInbox(subject []byte) []byte {
	at := len(b.scratch)
	b.scratch = b.s.box.appendUp(b.scratch, subject)
	return b.scratch[at:len(b.scratch):len(b.scratch)]
}

// forward sends a publish on that admission has no part in.
func (b *batch) forward(subject, reply, header, payload []byte) {
	if len(header) > 0 {
		b.frame = wire.AppendHPub(b.frame[:0], subject, reply, header, payload)
	} else {
		b.frame = wire.AppendPub(b.frame[:0], subject, reply, payload)
	}
	b.admission.Frame(b.frame)
	b.accepted()
}

// accepted counts and answers a publish that goes to the server.
func (b *batch) accepted() {
	b.messages++
	b.ok()
}

// forwardSub sends a SUB with the given filter in the order of the batch.
func (b *batch) forwardSub(sub *subscription, filter string) {
	b.frame = append(b.frame[:0], "SUB "...)
	b.frame = append(b.frame, filter...)
	b.frame = append(b.frame, ' ')
	if sub.queue != "" {
		b.frame = append(b.frame, sub.queue...)
		b.frame = append(b.frame, ' ')
	}
	b.frame = append(b.frame, sub.sid...)
	b.frame = append(b.frame, '\r', '\n')
	b.admission.Frame(b.frame)
}

// forwardUnsub sends UNSUB in the order of the batch; limit 0 is at once.
func (b *batch) forwardUnsub(sid string, limit int) {
	b.frame = appendUnsub(b.frame[:0], sid, limit)
	b.admission.Frame(b.frame)
}

// ok answers an operation of a verbose client.
func (b *batch) ok() {
	if b.s.opts.Verbose {
		b.answers = append(b.answers, okFrame...)
	}
}

// spill writes the answers early where a batch has many: a client must not make the
// gate hold a multiple of what it sends. A failed write is seen by the flush.
func (b *batch) spill() {
	if len(b.answers) > largeBuffer {
		_ = b.s.down.write(b.answers)
		b.answers = b.answers[:0]
	}
}

// flush ends the batch: the answers go to the client first, so that a refusal is
// there before the PONG to a PING that followed it; then everything that was
// accepted goes to the server in one write. A flush that fails is the last one: it
// says the same to whoever flushes on the way out.
func (b *batch) flush() error {
	if b.failed != nil {
		return b.failed
	}
	b.failed = b.s.down.write(b.answers)
	out := upPool.Get().(*[]byte)
	*out = b.admission.Flush((*out)[:0])
	b.counters.messages.Add(b.messages)
	b.messages = 0
	if err := b.s.up.write(*out); err != nil && b.failed == nil {
		b.failed = err
	}
	if cap(*out) <= 4*largeBuffer {
		upPool.Put(out)
	}
	b.answers = reset(b.answers)
	b.scratch = reset(b.scratch)
	b.frame = reset(b.frame)
	return b.failed
}

func reset(b []byte) []byte {
	if cap(b) > keepScratch {
		return nil
	}
	return b[:0]
}

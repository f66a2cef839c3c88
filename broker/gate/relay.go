package gate

import (
	"errors"
	"os"
	"strconv"
	"time"

	"github.com/signetbus/signet/internal/wire"
)

// relay copies frames from the server to the client. It runs in its own goroutine
// and is the only reader of the upstream connection after the handshake.
type relay struct {
	s        *session
	life     *lifetime
	hold     *holder
	greeting *greeting
	counters *counters
	max      int           // largest payload of a frame from the server
	done     chan struct{} // closed when run has ended

	tally    tally
	failures Failures // nil: deliveries are not counted

	in     window // starts with what the handshake read too much
	need   int    // bytes of the pending frame, once known
	out    []byte // rewritten frames of this chunk; empty: the chunk goes as it is
	from   int    // start of the bytes of the chunk that were not emitted yet
	lost   bool   // the client is gone: read on and discard
	ponged bool   // the first PONG was relayed
}

// leastFrame is room for an answer of the admin API, however little clients may send:
// a page of the audit trail in base64 is over half a MiB.
const leastFrame = 1 << 20

func (r *relay) init(c *conn) {
	g := c.gate
	r.s, r.life, r.hold, r.greeting, r.counters = &c.session, &c.life, &c.hold, &c.greeting, &g.counters
	// The largest that the server sends is an answer of the JetStream API: a stored
	// message in base64 inside JSON (STREAM.MSG.GET), or one page of a list.
	r.max = max(4*(g.cfg.Limits.Payload+g.cfg.Limits.HeaderBudget)+largeBuffer, leastFrame)
	r.done = make(chan struct{})
	r.tally.c = c
	r.failures = g.deps.Failures
}

// awaitPong reads INFO and the PONG of the gate's own PING. What follows stays in
// the window. The handshake calls it, before run.
func (r *relay) awaitPong() error {
	var f frame
	for {
		n, _, err := nextFrame(r.in.unread(), r.max, &f)
		if err != nil {
			return err
		}
		if n > 0 {
			r.in.r += n
			switch f.kind {
			case framePong:
				r.in.settle()
				return nil
			case frameInfo, framePing:
				continue
			default:
				return errFrame // -ERR: the ticket was not taken
			}
		}
		n, err = r.s.up.nc.Read(r.in.room(0))
		r.in.filled(n)
		if n == 0 && err != nil {
			return err
		}
	}
}

// run copies until the server ends the connection, then ends the client's.
func (r *relay) run() {
	defer close(r.done)
	defer r.in.release()
	for r.step() {
	}
	if r.hold.barrier != nil {
		r.hold.settle()
	}
	// The client learns of a lost server by the end of its connection.
	r.life.wake(nil)
}

// step handles what is buffered, then one read. False ends the relay.
func (r *relay) step() bool {
	if err := r.chunk(); err != nil {
		r.life.abort()
		return false
	}
	room := r.in.room(r.need)
	n, err := r.s.up.nc.Read(room)
	r.in.filled(n)
	return err == nil || n > 0
}

// chunk emits every whole frame of the buffer in one write.
func (r *relay) chunk() error {
	buf := r.in.unread()
	if len(buf) == 0 || len(buf) < r.need {
		return nil
	}
	r.from, r.need = 0, 0
	r.out = r.out[:0]
	at, frames, err := r.frames(buf)
	if err != nil {
		return err
	}
	r.counters.frames.Add(frames)
	err = r.emit(buf[:at])
	r.in.r += at
	return err
}

// frames handles the whole frames at the start of buf and returns where they end.
func (r *relay) frames(buf []byte) (end int, count uint64, _ error) {
	r.tally.begin()
	defer r.tally.end()
	var f frame
	at, frames, now := 0, uint64(0), time.Time{}
	for at < len(buf) {
		n, need, err := nextFrame(buf[at:], r.max, &f)
		if err != nil {
			return at, frames, err
		}
		if n == 0 {
			r.need = need
			break
		}
		frames++
		if f.kind <= frameHMsg {
			if len(f.reply) > 0 && now.IsZero() {
				now = time.Now()
			}
			r.message(buf, at, n, &f, now)
		} else {
			r.control(buf, at, n, &f)
		}
		at += n
	}
	return at, frames, nil
}

// emit writes the chunk: the rewritten frames and what follows them, or, if none
// was rewritten, the bytes as they came.
func (r *relay) emit(chunk []byte) error {
	out := chunk[r.from:]
	if len(r.out) > 0 {
		r.out = append(r.out, out...)
		out = r.out
	}
	if !r.lost {
		if err := r.s.down.write(out); err != nil {
			// Read on: the server may still be processing what the client sent before
			// it went, and must not meet a reset.
			r.lost = true
			if errors.Is(err, os.ErrDeadlineExceeded) {
				r.life.reset() // the client is there and does not read
			}
			// Else the client has gone. The reader sees that too, after what the
			// client sent before it went.
		}
	}
	if cap(r.out) > 2*largeBuffer {
		r.out = nil
	}
	return nil
}

// cut ends the run of unchanged bytes at the frame [at, at+n) and starts the next
// one after it; the caller appends what goes in its place.
func (r *relay) cut(buf []byte, at, n int) {
	if cap(r.out) == 0 {
		r.out = make([]byte, 0, max(smallBuffer, min(len(buf)+64, largeBuffer)))
	}
	r.out = append(r.out, buf[r.from:at]...)
	r.from = at + n
}

// message handles MSG and HMSG.
func (r *relay) message(buf []byte, at, n int, f *frame, now time.Time) {
	s := r.s
	if len(f.sid) == len(s.box.ackSID) && string(f.sid) == s.box.ackSID {
		r.cut(buf, at, n)
		r.acknowledge(f)
		return
	}
	s.subs.delivered(f.sid)
	ownSubject := s.box.own(f.subject)
	if ownSubject {
		s.flights.answered(f.subject)
		s.asked.answered(s.flights.of, f.subject)
	} else {
		d := r.tally.look(f)
		if r.withhold(buf, at, n, f, &d, now) {
			return
		}
		r.tally.message(f, &d, now)
	}
	change := ownSubject || f.kind == frameHMsg && !s.opts.Headers
	if len(f.reply) > 0 {
		if s.box.own(f.reply) {
			change = true
		} else if !r.handOver(f, ownSubject, now) {
			f.reply, change = nil, true
		}
	}
	if !change {
		return
	}
	r.cut(buf, at, n)
	r.deliver(f, ownSubject && (isPubAck(f.payload) || isControl(f.subject)))
}

// deliver emits f as the client sees it, an acknowledgement after the barrier.
func (r *relay) deliver(f *frame, ack bool) {
	mark := len(r.out)
	r.rewrite(f)
	if ack && r.hold.barrier != nil {
		r.counters.held.Add(1)
		r.hold.add(r.out[mark:])
		r.out = r.out[:mark]
	}
}

// handOver reports whether the client may see a reply subject that is not its own
// inbox. Whoever sees the inbox of another connection may answer there, and what
// reads the answer takes it for the one it waits for: so only whoever is asked gets
// it. The reply of an event is for the acknowledgement of its stream, which every
// subscriber could forge.
func (r *relay) handOver(f *frame, ownSubject bool, now time.Time) bool {
	switch {
	case hasPrefix(f.reply, wire.PrefixJSAck), hasPrefix(f.reply, wire.PrefixJSFC):
		return true // the read guard judges who may use them
	case !isInbox(f.reply) && !hasPrefix(f.reply, wire.PrefixRouted):
		return false
	case ownSubject, hasPrefix(f.subject, wire.PrefixRPC), hasPrefix(f.subject, wire.PrefixService):
		r.s.handed.add(f.reply, now)
		return true
	}
	return false
}

// rewrite emits f as the client sees it: inboxes without the token, and no headers
// where the client knows none.
func (r *relay) rewrite(f *frame) {
	dst, box := r.out, &r.s.box
	headers := f.kind == frameHMsg && r.s.opts.Headers
	if headers {
		dst = append(dst, 'H')
	}
	dst = append(dst, "MSG "...)
	dst = box.appendDown(dst, f.subject)
	dst = append(dst, ' ')
	dst = append(dst, f.sid...)
	dst = append(dst, ' ')
	if len(f.reply) > 0 {
		dst = box.appendDown(dst, f.reply)
		dst = append(dst, ' ')
	}
	size := len(f.payload)
	if headers {
		dst = strconv.AppendInt(dst, int64(len(f.header)), 10)
		dst = append(dst, ' ')
		size += len(f.header)
	}
	dst = strconv.AppendInt(dst, int64(size), 10)
	dst = append(dst, '\r', '\n')
	if headers {
		dst = append(dst, f.header...)
	}
	dst = append(dst, f.payload...)
	r.out = append(dst, '\r', '\n')
}

// control handles everything that is not a message.
func (r *relay) control(buf []byte, at, n int, f *frame) {
	switch f.kind {
	case frameInfo, frameOK:
		// The server's INFO names loopback addresses, and +OK is the gate's to say.
		r.cut(buf, at, n)
	case framePong:
		if r.ponged {
			return
		}
		// As nats-server does, the first PONG is followed by an INFO that says that
		// the connection is complete.
		r.ponged = true
		if r.s.opts.Protocol >= 1 {
			r.cut(buf, at, n)
			r.out = append(r.out, "PONG\r\n"...)
			r.out = append(r.out, r.greeting.info(infoConnected)...)
		}
	case frameErr:
		if line := r.s.box.scrub(f.line); len(line) != len(f.line) {
			r.cut(buf, at, n)
			r.out = append(r.out, line...)
			r.out = append(r.out, '\r', '\n')
		}
	}
}

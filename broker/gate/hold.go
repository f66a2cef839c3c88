package gate

import (
	"bytes"
	"sync"
)

// ackPrefix starts every publish acknowledgement that the server writes:
// {"stream":"S","seq":1} or {"stream":"S","domain":"D","seq":1}.
var (
	ackPrefix = []byte(`{"stream":`)
	ackSeq    = []byte(`"seq":`)
)

// isPubAck reports whether a payload is a publish acknowledgement. A payload of
// somebody else that looks like one is only held a moment longer.
func isPubAck(payload []byte) bool {
	return bytes.HasPrefix(payload, ackPrefix) && bytes.Contains(payload, ackSeq)
}

// holder keeps the acknowledgements of one connection until stable storage has
// what they acknowledge. The relay adds frames in order; a flusher goroutine, which
// exists only while frames are held, waits for the barrier and releases all frames
// that were added before the wait began. After a failed barrier nothing is released
// any more and the connection ends: the client sees unknown outcomes, never a false
// acknowledgement.
type holder struct {
	barrier Barrier // nil: nothing is held
	max     int     // bytes; the relay waits when they are reached
	life    *lifetime
	down    *link           // to the client
	wg      *sync.WaitGroup // of the Gate

	mu      sync.Mutex
	space   sync.Cond
	pending []byte
	spare   []byte // the buffer of the last flush, empty
	running bool
	failed  bool
}

func (h *holder) init(c *conn) {
	h.barrier, h.max = c.gate.deps.Barrier, c.gate.cfg.Limits.HeldBytes
	h.life, h.down, h.wg = &c.life, &c.session.down, &c.gate.wg
	h.space.L = &h.mu
}

// add holds one frame, which is copied.
func (h *holder) add(frame ...[]byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.pending) >= h.max && !h.failed {
		h.space.Wait()
	}
	if h.failed {
		return
	}
	for _, f := range frame {
		h.pending = append(h.pending, f...)
	}
	if !h.running {
		h.running = true
		h.wg.Add(1)
		go h.flush()
	}
}

// stop lets go of a relay that waits in add; nothing is released any more.
func (h *holder) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failLocked()
}

func (h *holder) failLocked() {
	h.failed, h.pending, h.spare = true, nil, nil
	h.space.Broadcast()
}

// flush runs until nothing is held. The connection's lifetime ends a wait.
func (h *holder) flush() {
	defer h.wg.Done()
	defer h.life.survive()
	ended := false
	defer func() {
		if !ended { // by a panic: the relay must not wait for what nobody releases
			h.stop()
		}
	}()
	for h.round() {
	}
	ended = true
}

// round releases what is held now. False ends the flusher.
func (h *holder) round() bool {
	batch := h.take()
	if batch == nil {
		return false
	}
	err := h.barrier.Wait(h.life.ctx)
	if err == nil {
		err = h.down.write(batch)
	}
	if err != nil {
		h.stop()
		h.life.abort()
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.spare == nil && cap(batch) <= largeBuffer {
		h.spare = batch[:0]
	}
	return true
}

// take returns what is held and makes room for more; nil ends the flusher.
func (h *holder) take() []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	defer h.space.Broadcast()
	if len(h.pending) == 0 || h.failed {
		h.running = false
		h.pending, h.spare = nil, nil // an idle connection holds nothing
		return nil
	}
	batch := h.pending
	h.pending, h.spare = h.spare, nil
	return batch
}

// settle waits until nothing is held any more or nothing will be released.
func (h *holder) settle() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.running && !h.failed {
		h.space.Wait()
	}
}

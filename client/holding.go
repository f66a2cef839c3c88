package client

import (
	"errors"
	"time"

	"github.com/nats-io/nats.go"
)

// holding keeps deliveries that cannot be checked while no keyring can be had, and starts
// their ack wait anew. Given back, each would come again and count, and while a keyring is
// away for longer than the retry policy waits, good events would become dead letters. The
// bound on what a consumer may have in flight bounds it.
//
// One goroutine: the one that reads.
type holding struct {
	list []held
	look time.Time // when the list is looked at next
}

type held struct {
	msg  *nats.Msg
	info ackInfo
	at   time.Time // when its ack wait began
}

// keep takes a delivery whose check failed with err, in place of giving it back, and
// reports whether it did. An ordered or key-ordered reader, and one with an ack wait that
// is over before the next look, gives it back; so does one whose key record is missing,
// which may never come.
func (h *holding) keep(s *Subscription, msg *nats.Msg, info *ackInfo, err error) bool {
	if errors.Is(err, ErrDecryption) || s.cfg.ordered || s.keyed() != nil || s.cfg.ackWait < 3*laterDelay {
		return false
	}
	now := time.Now()
	if s.client.nc.Publish(msg.Reply, []byte("+WPI")) != nil {
		return true // the connection is gone, and the event comes again
	}
	if len(h.list) == 0 {
		h.look = now.Add(laterDelay)
	}
	for i := range h.list {
		if h.list[i].info.streamSeq == info.streamSeq { // it came again
			h.list[i] = held{msg, *info, now}
			return true
		}
	}
	h.list = append(h.list, held{msg, *info, now})
	return true
}

// due returns what must be checked again now; what still cannot be is kept again. Frames
// come at least as often as heartbeats, so that it is asked often enough.
func (h *holding) due(s *Subscription) []held {
	if len(h.list) == 0 {
		return nil
	}
	now := time.Now()
	if now.Before(h.look) {
		return nil
	}
	list := h.list
	h.list, h.look = nil, now.Add(laterDelay)
	kept := list[:0:0]
	for _, w := range list {
		if now.Sub(w.at) >= s.cfg.ackWait {
			continue // while this reader was held up the server took it back: it comes again
		}
		kept = append(kept, w)
	}
	return kept
}

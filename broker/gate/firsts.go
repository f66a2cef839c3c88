package gate

import (
	"hash/maphash"
	"time"
)

// firstSlots is how many first deliveries a connection remembers the time of. A dead letter
// tells of it; where it was forgotten, or the event went to another connection, it does not.
const firstSlots = 256

var firstSeed = maphash.MakeSeed()

// firsts remembers when events were delivered for the first time: one slot for each
// sequence modulo firstSlots. tally.mu guards it.
type firsts struct {
	slots *[firstSlots]firstSlot // nil until the first event of a consumer
}

type firstSlot struct {
	consumer, sequence uint64
	at                 int64 // Unix nanoseconds
}

// consumerTag stands for a consumer, by the ack subjects of it up to its name and the dot.
func consumerTag(prefix []byte) uint64 { return maphash.Bytes(firstSeed, prefix) }

func (t *firsts) note(c *count, sequence uint64, now time.Time) {
	if t.slots == nil {
		t.slots = new([firstSlots]firstSlot)
	}
	t.slots[sequence%firstSlots] = firstSlot{c.tag, sequence, now.UnixNano()}
}

func (t *firsts) get(tag, sequence uint64) time.Time {
	if t.slots == nil {
		return time.Time{}
	}
	if s := t.slots[sequence%firstSlots]; s.consumer == tag && s.sequence == sequence && s.at > 0 {
		return time.Unix(0, s.at)
	}
	return time.Time{}
}

// first returns when the event that an ack subject is of was delivered for the first time,
// zero if that is not known. It takes the lock that the relay holds while it looks at what
// came at once.
func (t *tally) first(ack []byte, sequence uint64) time.Time {
	at := consumerEnd(ack)
	if at < 0 {
		return time.Time{}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.firsts.get(consumerTag(ack[:at]), sequence)
}

package deadletter

import (
	"bytes"
	"strconv"
	"time"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/dlq"
	"github.com/signetbus/signet/internal/wire"
)

// maxSeen bounds the events whose redeliveries are remembered, in each of two
// generations.
const maxSeen = 1 << 12

// deliveries remembers when this node delivered an event again. It is for people who read
// a dead letter; what it has forgotten is not in it. The Keeper's mu guards it.
type deliveries struct {
	now, old map[eventKey][]dlq.Delivery
}

func (d *deliveries) add(key eventKey, one dlq.Delivery) {
	list, ok := d.now[key]
	if !ok {
		list = d.old[key]
		delete(d.old, key)
	}
	if len(d.now) >= maxSeen {
		d.now, d.old = nil, d.now
	}
	if d.now == nil {
		d.now = make(map[eventKey][]dlq.Delivery)
	}
	if len(list) >= dlq.MaxDeliveries {
		list = append(list[:1:1], list[2:]...)
	}
	d.now[key] = append(list, one)
}

func (d *deliveries) get(key eventKey) []dlq.Delivery {
	if list, ok := d.now[key]; ok {
		return list
	}
	return d.old[key]
}

func (k *Keeper) forget(key eventKey) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.seen.now, key)
	delete(k.seen.old, key)
}

// history is when the event of f was delivered, as far as it is known here.
func (k *Keeper) history(f *Failure) []dlq.Delivery {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []dlq.Delivery
	if !f.First.IsZero() {
		out = append(out, dlq.Delivery{Attempt: 1, At: f.First})
	}
	return append(out, k.seen.get(eventKey{consumerKey{f.Tenant, f.Stream, f.Consumer}, f.Sequence})...)
}

func schemaName(s *policy.SchemaDoc) string { return s.Name + "@" + strconv.Itoa(s.Version) }

func plural(n int) string {
	if n == 1 {
		return "1 delivery"
	}
	return strconv.Itoa(n) + " deliveries"
}

// expired reports whether the expirytime of a stored event is over.
func expired(header []byte, now time.Time) bool {
	for line := range bytes.SplitSeq(header, []byte("\r\n")) {
		value, ok := bytes.CutPrefix(line, []byte(wire.PrefixAttribute+wire.AttrExpiryTime+":"))
		if !ok {
			continue
		}
		at, err := time.Parse(time.RFC3339Nano, string(bytes.TrimSpace(value)))
		return err == nil && now.After(at)
	}
	return false
}

package gate

import (
	"hash/maphash"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// ConsumerName names a consumer of a tenant.
type ConsumerName struct{ Stream, Consumer string }

// makingTTL is how long a consumer counts that was asked for, while the server says neither
// that it is made nor that it is not.
const makingTTL = 5 * time.Second

// makings are the consumers that a principal has asked this node for and that the server has
// not answered yet: it may or may not list them. Each counts those that were asked for
// before it, so that those asked for at once never go over a limit together.
type makings struct {
	mu   sync.Mutex
	last uint64
	list []making // by number
}

type making struct {
	number uint64
	at     time.Time
	name   ConsumerName
}

// begin numbers what is asked for.
func (m *makings) begin(name ConsumerName, now time.Time) (number uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.list) > 0 && now.Sub(m.list[0].at) >= makingTTL {
		m.list = m.list[1:]
	}
	m.last++
	if name.Consumer == "" { // the server will draw a name, for each another one
		name.Consumer = " " + strconv.FormatUint(m.last, 10)
	}
	m.list = append(m.list, making{m.last, now, name})
	return m.last
}

// before returns what was asked for before the number and is open.
func (m *makings) before(number uint64) []ConsumerName {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []ConsumerName
	for i := range m.list {
		if m.list[i].number < number {
			out = append(out, m.list[i].name)
		}
	}
	return out
}

// end forgets what was refused, or answered.
func (m *makings) end(number uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.list {
		if m.list[i].number == number {
			m.list = slices.Delete(m.list, i, i+1)
			return
		}
	}
}

// asked are the consumers that one connection waits to hear of. The reader adds, the relay
// takes away. Those without an answer are forgotten by makings.
type asked struct {
	waiting atomic.Int64 // len of list, so that the relay need not lock for nothing
	mu      sync.Mutex
	list    []asking // oldest first
}

type asking struct {
	reply  uint64 // hash of the reply subject as the server sees it
	number uint64
}

// maxAsked bounds what a connection waits for; what is beyond counts until makingTTL.
const maxAsked = 1024

func (a *asked) add(reply []byte, number uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.list) == maxAsked {
		a.list = slices.Delete(a.list, 0, 1)
	}
	a.list = append(a.list, asking{maphash.Bytes(flightSeed, reply), number})
	a.waiting.Store(int64(len(a.list)))
}

// answered ends the first that waits for an answer on the subject.
func (a *asked) answered(of *usage, subject []byte) {
	if a.waiting.Load() == 0 {
		return
	}
	reply := maphash.Bytes(flightSeed, subject)
	a.mu.Lock()
	defer a.mu.Unlock()
	i := slices.IndexFunc(a.list, func(one asking) bool { return one.reply == reply })
	if i < 0 {
		return
	}
	of.making.end(a.list[i].number)
	a.list = slices.Delete(a.list, i, i+1)
	a.waiting.Store(int64(len(a.list)))
}

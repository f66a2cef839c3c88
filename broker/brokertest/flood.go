package brokertest

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// floodTick is between two writes of a Flood.
const floodTick = 10 * time.Millisecond

// Flood publishes on an ephemeral subject over several connections, each at a pace of its own, and
// counts what was let in by the second in which a node took it: by the clocks of the nodes,
// however late it is heard of. An event that several connections hear counts once.
type Flood struct {
	nodes []*floodNode
	stop  chan struct{}
	done  sync.WaitGroup

	mu      sync.Mutex
	seen    map[string]bool
	seconds map[int64]int
	total   int
}

type floodNode struct {
	nc   *nats.Conn
	pace atomic.Int64 // a second
}

// NewFlood begins at a pace of nothing, and ends with the test. The principal of the connections must
// be allowed to publish and to subscribe to the subject; they are not closed.
func NewFlood(tb testing.TB, natsSubject string, conns ...*nats.Conn) *Flood {
	tb.Helper()
	f := &Flood{stop: make(chan struct{}), seen: map[string]bool{}, seconds: map[int64]int{}}
	for _, nc := range conns {
		if _, err := nc.Subscribe(natsSubject, f.hear); err != nil {
			tb.Fatal(err)
		}
		n := &floodNode{nc: nc}
		f.nodes = append(f.nodes, n)
		f.done.Go(func() { f.run(n, natsSubject) })
	}
	tb.Cleanup(f.Stop)
	return f
}

// Pace sets how much connection i publishes in a second.
func (f *Flood) Pace(i, perSecond int) { f.nodes[i].pace.Store(int64(perSecond)) }

// Stop ends it and waits.
func (f *Flood) Stop() {
	select {
	case <-f.stop:
	default:
		close(f.stop)
	}
	f.done.Wait()
}

// Total is how many events were let in so far.
func (f *Flood) Total() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.total
}

// Over returns the window of at least so many whole seconds in which most was let in beyond a rate per
// second: how many beyond it, and the window.
func (f *Flood) Over(seconds int, rate float64) (beyond float64, window string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	first, last := int64(0), int64(0)
	for s := range f.seconds {
		if first == 0 || s < first {
			first = s
		}
		last = max(last, s)
	}
	sums := []float64{0}
	for s := first; s <= last; s++ {
		sums = append(sums, sums[len(sums)-1]+float64(f.seconds[s])-rate)
	}
	lowest := 0
	for end := seconds; end < len(sums); end++ {
		if from := end - seconds; sums[from] < sums[lowest] {
			lowest = from
		}
		if got := sums[end] - sums[lowest]; window == "" || got > beyond {
			beyond, window = got, fmt.Sprintf("%d s from second %d", end-lowest, lowest)
		}
	}
	return beyond, window
}

func (f *Flood) hear(m *nats.Msg) {
	took, err := time.Parse(time.RFC3339, m.Header.Get("ce-time"))
	if err != nil {
		return // of no node
	}
	id := m.Header.Get("ce-id")
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.seen[id] {
		f.seen[id] = true
		f.seconds[took.Unix()]++
		f.total++
	}
}

// run writes what is due since the last tick; what a slow machine is late with by more than a second
// is left out.
func (f *Flood) run(n *floodNode, natsSubject string) {
	t := time.NewTicker(floodTick)
	defer t.Stop()
	last, due := time.Now(), 0.0
	for {
		select {
		case <-f.stop:
			return
		case now := <-t.C:
			pace := float64(n.pace.Load())
			due = min(due+pace*now.Sub(last).Seconds(), pace)
			last = now
		}
		for ; due >= 1; due-- {
			_ = n.nc.Publish(natsSubject, []byte("x")) // a node that is gone takes nothing
		}
	}
}

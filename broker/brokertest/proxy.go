package brokertest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

const (
	proxyChunk = 16 << 10
	proxyQueue = 256 // chunks that a link holds, as the buffers of a network do
)

// Way is a direction of the bytes on a link.
type Way int

// The ways.
const (
	BothWays Way = iota
	Toward       // from who dials to who listens
	Back         // from who listens to who dials
)

// Link says what a Proxy does to the bytes that pass it. The zero value passes them on.
type Link struct {
	// Cut holds everything back and keeps all connections open, as a network does that
	// loses every packet. What is held arrives when Cut ends.
	Cut bool
	// Only is the way to which Cut, Delay, BytesPerSecond and Stalls apply; the other one
	// is as if there were none.
	Only Way
	// Delay of each way.
	Delay time.Duration
	// BytesPerSecond of each way of each connection; 0 is no limit.
	BytesPerSecond int
	// Stalls are what is left of lost packets under TCP.
	Stalls Stalls
}

// Stalls hold one way of one connection back now and then, as a lost packet does until
// it is sent again; what comes behind it waits. Which way of which connection stalls when
// follows from Seed and the order of the connections.
type Stalls struct {
	Every    time.Duration // mean time between two stalls of one way; 0 is none
	Min, Max time.Duration // bounds of one stall
	Seed     uint64
}

// Proxy is a TCP link that can be cut and slowed down. Safe for concurrent use.
type Proxy struct {
	listener net.Listener
	to       string
	life     context.Context //nolint:containedctx // the private lifetime of the goroutines
	stop     context.CancelFunc
	wg       sync.WaitGroup

	mu   sync.Mutex
	link Link
	open chan struct{} // closed while the link is not cut
	ways uint64        // that were opened so far: the stream of random numbers of each
}

// NewProxy listens on a free port of 127.0.0.1 and passes connections on to the
// address to.
func NewProxy(to string) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("brokertest: proxy: %w", err)
	}
	p := &Proxy{listener: l, to: to, open: make(chan struct{})}
	close(p.open)
	p.life, p.stop = context.WithCancel(context.Background())
	p.wg.Go(p.accept)
	return p, nil
}

// Addr is where the proxy listens.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Set changes the link, for connections that are open and for new ones.
func (p *Proxy) Set(l Link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case l.Cut && !p.link.Cut:
		p.open = make(chan struct{})
	case !l.Cut && p.link.Cut:
		close(p.open)
	case l.Cut && l.Only != p.link.Only: // who waits looks again
		close(p.open)
		p.open = make(chan struct{})
	}
	p.link = l
}

// Close ends all connections and blocks until the goroutines are gone.
func (p *Proxy) Close() {
	p.stop()
	_ = p.listener.Close()
	p.wg.Wait()
}

// passing waits until the link is not cut that way, and returns what else holds for it;
// false means that the proxy was closed.
func (p *Proxy) passing(way Way) (Link, bool) {
	for {
		p.mu.Lock()
		link, open := p.link, p.open
		p.mu.Unlock()
		if link.Only != BothWays && link.Only != way {
			link = Link{}
		}
		if !link.Cut {
			return link, p.life.Err() == nil
		}
		select {
		case <-open:
		case <-p.life.Done():
			return link, false
		}
	}
}

func (p *Proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return // Close did it
		}
		p.wg.Go(func() { p.serve(c) })
	}
}

// serve connects through and copies both ways. A connection that begins while the
// link is cut gets no answer before it is mended.
func (p *Proxy) serve(near net.Conn) {
	defer near.Close()
	for _, way := range []Way{Toward, Back} { // a handshake needs both
		if _, ok := p.passing(way); !ok {
			return
		}
	}
	far, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(p.life, "tcp", p.to)
	if err != nil {
		return
	}
	defer far.Close()
	end := context.AfterFunc(p.life, func() { near.Close(); far.Close() })
	defer end()
	var ways sync.WaitGroup
	for way, ends := range map[Way][2]net.Conn{Toward: {near, far}, Back: {far, near}} {
		ways.Go(func() {
			p.copy(ends[1], ends[0], way)
			// A way that has ended ends the other: routes have no half-closed connections.
			near.Close()
			far.Close()
		})
	}
	ways.Wait()
}

type chunk struct {
	data []byte
	read time.Time
}

func (p *Proxy) copy(to, from net.Conn, way Way) {
	queue, gone := make(chan chunk, proxyQueue), make(chan struct{})
	defer close(gone)
	p.wg.Go(func() {
		defer close(queue)
		for {
			b := make([]byte, proxyChunk)
			n, err := from.Read(b)
			if n > 0 {
				select {
				case queue <- chunk{b[:n], time.Now()}:
				case <-gone:
					return
				}
			}
			if err != nil {
				return
			}
		}
	})
	p.mu.Lock()
	p.ways++
	stall := staller{number: p.ways}
	p.mu.Unlock()
	for c := range queue {
		link, ok := p.passing(way)
		if !ok || !p.wait(time.Until(c.read.Add(link.Delay))) || !p.wait(stall.next(link.Stalls)) {
			return
		}
		if _, ok := p.passing(way); !ok { // it may have been cut meanwhile
			return
		}
		if _, err := to.Write(c.data); err != nil {
			return
		}
		if link.BytesPerSecond > 0 && !p.wait(time.Duration(len(c.data))*time.Second/time.Duration(link.BytesPerSecond)) {
			return
		}
	}
	p.passing(way) // the end of a connection does not get through a cut link either
}

// staller says when one way of one connection stalls.
type staller struct {
	number uint64
	of     Stalls // what rnd was made for
	rnd    *rand.Rand
	at     time.Time // of the next stall
}

// next returns for how long to hold back what is about to be passed on.
func (s *staller) next(now Stalls) time.Duration {
	if now.Every <= 0 {
		s.of = now
		return 0
	}
	gap := func() time.Duration { return time.Duration(s.rnd.ExpFloat64() * float64(now.Every)) }
	if now != s.of {
		s.of, s.rnd = now, rand.New(rand.NewPCG(now.Seed, s.number)) //nolint:gosec // repeatable, not secret
		s.at = time.Now().Add(gap())
	}
	if time.Now().Before(s.at) {
		return 0
	}
	hold := now.Min + time.Duration(s.rnd.Int64N(int64(max(1, now.Max-now.Min))))
	s.at = time.Now().Add(hold + gap())
	return hold
}

// wait is false when the proxy was closed meanwhile.
func (p *Proxy) wait(d time.Duration) bool {
	if d <= 0 {
		return p.life.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-p.life.Done():
		return false
	}
}

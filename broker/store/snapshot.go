package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// snapshotChunk and snapshotWindow are what the server sends at once: together
	// with keepAlive they bound the memory of a snapshot that is read slowly.
	snapshotChunk  = 64 << 10
	snapshotWindow = 1 << 20
	// keepAlive is how often a chunk is acknowledged while nothing can be written:
	// the server gives a snapshot up after 5 s without an acknowledgement.
	keepAlive = 2 * time.Second
	// maxPendingChunks ends a snapshot whose reader stands still. At one chunk each
	// keepAlive it is reached after some 15 minutes; who reads has a bound of its own.
	maxPendingChunks = 512
)

// ErrSnapshot: the server gave up a snapshot, or its reader was too slow.
var ErrSnapshot = errors.New("store: the snapshot ended early")

// Snapshot is a stream at one point of its sequence. Publishing goes on meanwhile;
// what comes after that point is not in it. Its consumers are.
type Snapshot struct {
	Config json.RawMessage // of the stream, as the server has it

	nc     *nats.Conn
	sub    *nats.Subscription
	chunks chan *nats.Msg
}

// OpenSnapshot begins a snapshot of a tenant's stream. CopyTo must follow at once,
// and Close in any case.
//
// Errors: ErrNotFound, ErrNoAccount, ErrServer, ErrClosed, or the connection's.
func (s *Store) OpenSnapshot(ctx context.Context, tenant, stream string) (*Snapshot, error) {
	a, err := s.account(tenant)
	if err != nil {
		return nil, err
	}
	if !plainName(stream) {
		return nil, fmt.Errorf("%w: stream %q", ErrNotFound, stream)
	}
	snap := &Snapshot{nc: a.nc, chunks: make(chan *nats.Msg, maxPendingChunks)}
	inbox := nats.NewInbox()
	if snap.sub, err = a.nc.ChanSubscribe(inbox, snap.chunks); err != nil {
		return nil, fmt.Errorf("store: snapshot of %s: %w", stream, err)
	}
	request := struct {
		Deliver string `json:"deliver_subject"`
		Chunk   int    `json:"chunk_size"`
		Window  int    `json:"window_size"`
	}{inbox, snapshotChunk, snapshotWindow}
	var answer struct {
		Config json.RawMessage `json:"config"`
	}
	err = a.request(ctx, "STREAM.SNAPSHOT."+stream, request, &answer)
	if err == nil && len(answer.Config) == 0 {
		err = fmt.Errorf("%w: snapshot of %s without a configuration", ErrServer, stream)
	}
	if err != nil {
		snap.Close()
		if missing(err) {
			return nil, fmt.Errorf("%w: stream %s", ErrNotFound, stream)
		}
		return nil, fmt.Errorf("tenant %s: %w", tenant, err)
	}
	snap.Config = answer.Config
	return snap, nil
}

// Close ends the snapshot. It may be called more than once.
func (n *Snapshot) Close() { _ = n.sub.Unsubscribe() } // fails only when it is gone already

// CopyTo writes the snapshot to w, compressed as the server sends it. Only what w
// has taken is asked for again, so a slow w costs little memory. A write that blocks
// must end when ctx does.
//
// Errors: ErrSnapshot, those of w and of ctx.
func (n *Snapshot) CopyTo(ctx context.Context, w io.Writer) error {
	out, written := make(chan []byte), make(chan error)
	go func() {
		defer close(written)
		for chunk := range out {
			_, err := w.Write(chunk)
			written <- err
			if err != nil {
				return
			}
		}
	}()
	p := &pump{nc: n.nc}
	err := p.run(ctx, n, out, written)
	close(out)
	if p.busy {
		for range written { // the write under way
		}
	}
	return err
}

// pump is one CopyTo: it takes chunks as they come, so that some of them can be
// acknowledged while a write blocks.
type pump struct {
	nc    *nats.Conn
	queue []*nats.Msg // not yet written; the first is being written while busy
	acked int         // how many of them are acknowledged already
	busy  bool
	ended bool
}

func (p *pump) run(ctx context.Context, n *Snapshot, out chan<- []byte, written <-chan error) error {
	alive := time.NewTicker(keepAlive)
	defer alive.Stop()
	silent := 0
	for !p.ended || len(p.queue) > 0 {
		var next chan<- []byte
		var chunk []byte
		if len(p.queue) > 0 && !p.busy {
			next, chunk = out, p.queue[0].Data
		}
		select {
		case m := <-n.chunks:
			silent = 0
			if err := p.took(m); err != nil {
				return err
			}
		case next <- chunk:
			p.busy = true
		case err := <-written:
			p.busy = false
			if err != nil {
				return err
			}
			p.done()
		case <-alive.C:
			if silent++; !p.ended && len(p.queue) == 0 && silent > 10 {
				return fmt.Errorf("%w: nothing came for %s", ErrSnapshot, 10*keepAlive)
			}
			p.ackOne()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// took adds a chunk. An empty one ends the snapshot, with a status unless all went
// well.
func (p *pump) took(m *nats.Msg) error {
	if len(m.Data) > 0 {
		if len(p.queue) >= maxPendingChunks {
			return fmt.Errorf("%w: its reader is too slow", ErrSnapshot)
		}
		p.queue = append(p.queue, m)
		return nil
	}
	if status := m.Header.Get("Status"); status != "" && status != "204" {
		return fmt.Errorf("%w: %s %s", ErrSnapshot, status, m.Header.Get("Description"))
	}
	p.ended = true
	return nil
}

// done takes the first chunk out of the queue and acknowledges it.
func (p *pump) done() {
	if p.acked == 0 {
		p.acked++
		p.ack(p.queue[0])
	}
	p.queue[0] = nil
	p.queue, p.acked = p.queue[1:], p.acked-1
}

// ackOne acknowledges the first chunk that is not.
func (p *pump) ackOne() {
	if p.acked < len(p.queue) {
		p.ack(p.queue[p.acked])
		p.acked++
	}
}

// ack fails only with the connection, which ends the snapshot too.
func (p *pump) ack(m *nats.Msg) {
	if m.Reply != "" {
		_ = p.nc.Publish(m.Reply, nil)
	}
}

// StreamNames returns the names of all streams of a tenant, sorted, declared or not, those
// without a leader included.
//
// Errors: ErrNoAccount, ErrServer, ErrClosed, or the connection's.
func (s *Store) StreamNames(ctx context.Context, tenant string) ([]string, error) {
	a, err := s.account(tenant)
	if err != nil {
		return nil, err
	}
	l, err := a.list(ctx)
	if err != nil {
		return nil, err
	}
	names := slices.AppendSeq(slices.Collect(maps.Keys(l.infos)), maps.Keys(l.silent))
	slices.Sort(names)
	return names, nil
}

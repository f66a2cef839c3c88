package bench

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

const sameHeadersWorkload = "async 256 B with the headers of Signet, lazy"

// readAlongWorkload is the same with one reader of the stream: what a log would cost the
// server if it read its stream by a consumer.
const readAlongWorkload = "async 256 B with the headers of Signet, read along, lazy"

// lazy measures publishing where the disk does not matter.
func (p *pair) lazy(ctx context.Context, kinds []Kind) error {
	for _, size := range []int{256, 2048} {
		for _, w := range []struct{ name, stream, subject string }{
			{"plain", streamPlain, subjectPlain}, {"schema", streamChecked, subjectChecked},
		} {
			m := &nats.Msg{Subject: w.subject, Data: order(size)}
			for _, kind := range kinds {
				if err := p.async(ctx, fmt.Sprintf("async %d B %s, lazy", size, w.name), kind, w.stream, m, p.LazyWindow); err != nil {
					return err
				}
			}
		}
	}
	if err := p.sameHeaders(ctx); err != nil {
		return err
	}
	for _, kind := range kinds {
		err := p.measure(ctx, "sync 256 B schema, 1 publisher, lazy", kind, streamChecked, func() (*Figure, error) {
			return publishSync(ctx, []*nats.Conn{p.conn[kind]}, subjectChecked, order(256), 1, p.Window/2)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// async warms up and measures one workload of publishing in flight.
func (p *pair) async(ctx context.Context, name string, kind Kind, stream string, m *nats.Msg, window int) error {
	if !strings.Contains(name, p.Only) {
		return nil
	}
	if _, err := publishAsync(p.conn[kind], m, window, p.Warm); err != nil {
		return err
	}
	return p.measure(ctx, name, kind, stream, func() (*Figure, error) {
		return publishAsync(p.conn[kind], m, window, p.Window)
	})
}

// sameHeaders gives the raw server the headers that Signet makes: what they cost
// inside nats-server, and what then is left for Signet itself.
func (p *pair) sameHeaders(ctx context.Context) error {
	if !strings.Contains(sameHeadersWorkload, p.Only) && !strings.Contains(readAlongWorkload, p.Only) {
		return nil // what both are fed with
	}
	const n = 4000 // enough to be in full batches
	if err := fill(p.conn[Signet], &nats.Msg{Subject: subjectPlain, Data: order(256)}, n); err != nil {
		return err
	}
	all, _, err := streamState(ctx, p.conn[Signet], streamPlain)
	if err != nil {
		return err
	}
	m, err := typical(ctx, p.conn[Signet], streamPlain, "plain.>", 256, all-n/2)
	if err != nil {
		return err
	}
	if err := p.async(ctx, sameHeadersWorkload, Raw, streamPlain, m, p.LazyWindow); err != nil {
		return err
	}
	return p.readAlong(ctx, m)
}

// readAlong has a consumer get each event while it is published: what that costs
// nats-server is why a log reads the files of its stream instead.
func (p *pair) readAlong(ctx context.Context, m *nats.Msg) error {
	if !strings.Contains(readAlongWorkload, p.Only) {
		return nil
	}
	nc, err := p.server[Raw].Connect(Cred)
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := nc.JetStream()
	if err != nil {
		return err
	}
	var got atomic.Int64
	sub, err := js.Subscribe("plain.>", func(*nats.Msg) { got.Add(1) }, nats.BindStream(streamPlain), nats.DeliverNew(),
		nats.AckNone(), nats.MaxDeliver(1), nats.EnableFlowControl(), nats.IdleHeartbeat(time.Second))
	if err != nil {
		return fmt.Errorf("%w: consumer: %w", ErrLoad, err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	return p.measure(ctx, readAlongWorkload, Raw, streamPlain, func() (*Figure, error) {
		before := got.Load()
		f, err := publishAsync(p.conn[Raw], m, p.LazyWindow, p.Window)
		if err != nil {
			return nil, err
		}
		look := time.NewTicker(lagLook)
		defer look.Stop()
		for end := time.Now().Add(doneWait); got.Load()-before < int64(f.Events); <-look.C {
			if time.Now().After(end) {
				return nil, fmt.Errorf("%w: read only %d of %d events", ErrLoad, got.Load()-before, f.Events)
			}
		}
		return f, nil
	})
}

// durable measures publishing where an acknowledgement means that the disk has it.
func (p *pair) durable(ctx context.Context, kinds []Kind) error {
	payload := order(256)
	for _, kind := range kinds {
		name := fmt.Sprintf("async 256 B schema, %d in flight, fsync", p.FsyncWindow)
		if err := p.async(ctx, name, kind, streamChecked, &nats.Msg{Subject: subjectChecked, Data: payload}, p.FsyncWindow); err != nil {
			return err
		}
	}
	for _, w := range []struct {
		name              string
		publishers, conns int
	}{
		{"sync 256 B schema, 64 publishers on 1 connection, fsync", 64, 1},
		{"sync 256 B schema, 64 publishers on 64 connections, fsync", 64, 64},
		{"sync 256 B schema, 1 publisher, fsync", 1, 1},
	} {
		for _, kind := range kinds {
			conns, closeAll, err := connections(p.server[kind], w.conns)
			if err == nil {
				err = p.measure(ctx, w.name, kind, streamChecked, func() (*Figure, error) {
					return publishSync(ctx, conns, subjectChecked, payload, w.publishers, p.Window)
				})
			}
			closeAll()
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func connections(s *Server, n int) (conns []*nats.Conn, closeAll func(), err error) {
	closeAll = func() {
		for _, nc := range conns {
			nc.Close()
		}
	}
	for range n {
		nc, err := s.Connect(Cred)
		if err != nil {
			return nil, closeAll, err
		}
		conns = append(conns, nc)
	}
	return conns, closeAll, nil
}

// reading fills READ of both servers with messages of the same size, headers
// included, and reads them.
func (p *pair) reading(ctx context.Context, kinds []Kind) error {
	n := p.ReadEvents
	if err := fill(p.conn[Signet], &nats.Msg{Subject: subjectRead, Data: order(256)}, n); err != nil {
		return err
	}
	// What Signet stored, headers and all, is what the raw server gets to store.
	stored, err := typical(ctx, p.conn[Signet], streamRead, filterRead, 256, uint64(n/2))
	if err != nil {
		return err
	}
	if err := fill(p.conn[Raw], stored, n); err != nil {
		return err
	}
	for _, kind := range kinds {
		msgs, bytes, err := streamState(ctx, p.conn[kind], streamRead)
		if err != nil {
			return err
		}
		p.results.Message[kind] = int64(bytes / msgs)
	}
	if raw, signet := p.results.Message[Raw], p.results.Message[Signet]; max(raw, signet)*100 > min(raw, signet)*105 {
		return fmt.Errorf("%w: messages of %d B against %d B are not of equal size", ErrLoad, raw, signet)
	}
	for _, w := range []struct {
		name string
		read func(context.Context, *nats.Conn, int) (*Figure, error)
	}{{"read, ordered consumer", readOrdered}, {"read, pull consumer with acks", readPull}} {
		for _, kind := range kinds {
			err := p.measure(ctx, w.name, kind, streamRead, func() (*Figure, error) { return w.read(ctx, p.conn[kind], n) })
			if err != nil {
				return err
			}
		}
	}
	return p.verifying(ctx, n)
}

func (p *pair) verifying(ctx context.Context, n int) error {
	c, err := p.server[Signet].SDK(ctx, Cred)
	if err != nil {
		return err
	}
	defer c.Close()
	return p.measure(ctx, "read, verifying SDK, ordered", Signet, streamRead, func() (*Figure, error) {
		return readVerified(ctx, c, n, orderedOption)
	})
}

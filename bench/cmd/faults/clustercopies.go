package main

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// copies reads the copy that each node itself has. A consumer without copies of its
// own reads the store of the node that it lies on, which the server chooses; so
// consumers are made until each node has had one.
func (r *clusterRun) copies(ctx context.Context, what string, last uint64) error {
	nc, err := r.at.Connect("reader")
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	done := map[string]bool{}
	for len(done) < r.c.Len() {
		cons, err := js.CreateConsumer(ctx, stream, jetstream.ConsumerConfig{
			AckPolicy: jetstream.AckNonePolicy, Replicas: 1, MemoryStorage: true, InactiveThreshold: time.Minute,
		})
		if err != nil {
			return fmt.Errorf("a consumer on a single node: %w (%d copies were read)", err, len(done))
		}
		info := cons.CachedInfo()
		if info.Cluster == nil || done[info.Cluster.Leader] {
			continue
		}
		v := r.w.l.judge()
		if err := v.readCopy(ctx, cons, last); err != nil {
			return fmt.Errorf("the copy of %s: %w", info.Cluster.Leader, err)
		}
		v.print(what+", copy of "+info.Cluster.Leader, r.faults)
		if err := v.err(); err != nil {
			return err
		}
		done[info.Cluster.Leader] = true
	}
	return nil
}

// readCopy feeds v with everything up to last.
func (v *verdict) readCopy(ctx context.Context, cons jetstream.Consumer, last uint64) error {
	messages, err := cons.Messages(jetstream.PullMaxMessages(2000))
	if err != nil {
		return err
	}
	defer messages.Stop()
	end := context.AfterFunc(ctx, messages.Stop)
	defer end()
	for {
		m, err := messages.Next()
		if err != nil {
			return fmt.Errorf("ended before sequence %d: %w", last, err)
		}
		meta, err := m.Metadata()
		if err != nil {
			return err
		}
		v.event(m.Subject(), m.Data(), meta.Sequence.Stream)
		if meta.Sequence.Stream >= last {
			v.close()
			return nil
		}
	}
}

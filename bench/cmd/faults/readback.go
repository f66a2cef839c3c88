package main

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/bench"
	"github.com/signetbus/signet/client"
)

// clockSlack is how far a recorded time may lie outside the run: it is in whole
// seconds.
const clockSlack = 2 * time.Second

// readBack reads the whole stream with the verifying SDK and judges it.
func readBack(ctx context.Context, a bench.Address, l *ledger, begin time.Time, bound time.Duration) (*verdict, error) {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	v := l.judge() // first: everything acknowledged by now is at or below last
	last, err := lastSequence(ctx, a)
	if err != nil {
		return nil, err
	}
	if last > 0 {
		if err := v.read(ctx, a, last, begin); err != nil {
			return nil, err
		}
	}
	v.close()
	return v, nil
}

func (v *verdict) read(ctx context.Context, a bench.Address, last uint64, begin time.Time) error {
	invalid := make(chan client.InvalidEvent, 1)
	c, err := a.SDK(ctx, "reader", client.WithInvalidHandler(func(e client.InvalidEvent) {
		select {
		case invalid <- e:
		default:
		}
	}))
	if err != nil {
		return err
	}
	defer c.Close()
	slack, done := clockSlack+v.l.clocks, make(chan struct{})
	sub, err := c.Subscribe(ctx, "faults.>", func(_ context.Context, d *client.Delivery) error {
		if d.Sequence > last {
			return nil // probes of a later moment
		}
		v.event(d.NATSSubject, d.Event.Data, d.Sequence)
		at := d.Attestation
		v.recorded.add(at.RecordedTime)
		v.kept.add(d.Stored)
		if d.Principal != principal || at.NATSSubject != d.NATSSubject || at.KeyID == "" ||
			at.RecordedTime.Before(begin.Add(-slack)) || at.RecordedTime.After(time.Now().Add(slack)) {
			v.fault(&v.Unattested, "sequence %d: attested as %+v", d.Sequence, at)
		}
		if d.Sequence == last {
			close(done)
		}
		return nil
	}, client.Ordered(), client.SubMaxInFlight(2000))
	if err != nil {
		return err
	}
	select {
	case <-done:
	case e := <-invalid:
		return fmt.Errorf("%w: sequence %d does not verify: %w", errBroken, e.Sequence, e.Err)
	case <-sub.Closed():
		return fmt.Errorf("reading back ended: %w", sub.Err())
	case <-ctx.Done():
		return fmt.Errorf("reading back reached not sequence %d: %+v: %w", last, sub.Stats(), ctx.Err())
	}
	sub.Stop()
	<-sub.Closed()
	return nil
}

// lastSequence is the last sequence of the stream that is there; 0 for an empty one.
func lastSequence(ctx context.Context, a bench.Address) (uint64, error) {
	nc, err := a.Connect("reader")
	if err != nil {
		return 0, err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return 0, err
	}
	s, err := js.Stream(ctx, stream)
	if err != nil {
		return 0, err
	}
	st := s.CachedInfo().State
	if st.Msgs == 0 {
		return 0, nil
	}
	return st.LastSeq, nil
}

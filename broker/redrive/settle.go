package redrive

import (
	"context"
	"fmt"
	"time"

	"github.com/signetbus/signet/broker/store"
	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/internal/wire"
)

// slack is how much of the window of a stream is left to clocks that differ.
const slack = time.Minute

// settle finds out how far another redrive of the letter came, whose mark is there. done: its
// target has it. again: its target does not, or will take it for the same, so it may be
// stored. Neither: the verdict says what there is to know.
func (r *Redriver) settle(ctx context.Context, l *letter, to *delivery, mark *store.Mark) (done, again bool, err error) {
	consumer := mark.To == adminapi.RedriveConsumer
	if consumer {
		// What was read and acknowledged is no longer in the queue.
		subject := wire.RetrySubject(l.rec.Origin.Stream, l.rec.Origin.Consumer)
		if done, err = store.Queued(ctx, r.cfg.Store, l.tenant.Name, subject, l.Sequence, mark.Before); done || err != nil {
			if done {
				l.out.To = mark.To // whatever is asked for now
			}
			return done, false, err
		}
		state, err := r.cfg.Store.StreamInfo(ctx, l.tenant.Name, wire.StreamRetry)
		if err != nil {
			return false, false, err
		}
		if state.LastSeq == mark.Sequence() && mark.To == l.out.To {
			return false, true, nil // nothing was stored after the mark
		}
	}
	same := mark.To == l.out.To && mark.Count == l.out.Count
	known := l.now.Before(mark.Time.Add(to.window - slack))
	if same && known && (!to.drains || mark.Boot == r.boot) {
		return false, true, nil
	}
	if l.order.Force {
		return false, true, nil
	}
	l.stop(adminapi.VerdictUncertain, fmt.Sprintf("%s was redriving it to %s at %s and did not finish: nobody can tell whether it arrived. Look there; --force redrives it, purge takes it away",
		mark.By, mark.To, mark.Time.UTC().Format(time.RFC3339)))
	return false, false, nil
}

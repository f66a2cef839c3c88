package broker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/broker/store"
	"github.com/signetbus/signet/broker/translog"
	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/internal/auditlog"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing/tlog"
)

const (
	// headsCompared bounds the sequences of the stream HEADS, the newest, that one
	// audit.heads compares with the log.
	headsCompared = 100_000
	// headsAgain is how long what was compared is not compared again.
	headsAgain = time.Minute
	// headsWithin bounds one audit.heads: the caller waits.
	headsWithin = 30 * time.Second
	// headsBegun bounds the wait for a log that has just begun, which looks each headsPoll.
	headsBegun, headsPoll = 2 * time.Second, 50 * time.Millisecond
)

// headsSource is the log of the heads of the audit trail.
func headsSource(set *policy.Set) translog.Source {
	return translog.Source{Tenant: wire.BrokerAccount, Account: wire.BrokerAccount, Stream: store.StreamHeads, Room: store.HeadsLogRoom(set)}
}

// headsWalk hands out heads with their proofs. Of one log it compares what it has compared
// within the last minute not again, and one caller's walk at a time.
type headsWalk struct {
	b  *Broker
	mu sync.Mutex
	// Under mu: up to which sequence of a log nothing was found, and when.
	log      string
	compared uint64
	at       time.Time
}

// loggedHeads is admin.Recording.Heads: the newest head of each chain of a tenant with its
// proof, after a look whether the stream is as its log has it. Where there are no proofs it
// says why, and is no error: the trail can be verified without.
func loggedHeads(b *Broker) func(context.Context, string) (adminapi.AuditHeads, error) {
	w := &headsWalk{b: b}
	return func(ctx context.Context, tenant string) (adminapi.AuditHeads, error) {
		ctx, cancel := context.WithTimeout(ctx, headsWithin)
		defer cancel()
		out := adminapi.AuditHeads{Tenant: tenant}
		note, held, err := w.newest(ctx, tenant)
		if err == nil {
			err = w.lines(&out, note, held)
		}
		if err == nil {
			out.Finding, err = w.compare(ctx, note)
		}
		switch {
		case errors.Is(err, translog.ErrDisagrees):
			out.Finding = err.Error()
		case err != nil:
			out.Unlogged = err.Error()
		case out.Finding == "":
			out.Finding = headsStandStill(b)
		}
		return out, nil
	}
}

// newest waits a moment for the first checkpoint of a log that has just begun.
func (w *headsWalk) newest(ctx context.Context, tenant string) (*tlog.Note, []translog.Held, error) {
	begun, cancel := context.WithTimeout(ctx, headsBegun)
	defer cancel()
	for {
		service := w.b.logs.Load()
		if service == nil {
			return nil, nil, errors.New("the logs are not started yet")
		}
		note, held, err := service.Newest(ctx, wire.BrokerAccount, store.StreamHeads, wire.PrefixHeads+tenant+".>", adminapi.MaxAuditHeads, chainOfHead)
		if !errors.Is(err, translog.ErrNotLogged) {
			return note, held, err
		}
		select {
		case <-begun.Done():
			return nil, nil, err
		case <-time.After(headsPoll):
		}
	}
}

// lines puts what is in the stream into the answer.
func (w *headsWalk) lines(out *adminapi.AuditHeads, note *tlog.Note, held []translog.Held) error {
	for i := range held {
		h := &held[i]
		if !h.Covered {
			out.Recent = append(out.Recent, string(h.Data))
			continue
		}
		l := auditlog.Logged{Sequence: h.Sequence, Stored: h.Stored, Subject: h.Subject, Block: h.Block, Head: string(h.Data), Checkpoint: string(note.Bytes())}
		for k := range h.Hashes {
			l.Hashes = append(l.Hashes, h.Hashes[k][:])
		}
		line, err := l.Encode()
		if err != nil {
			return err
		}
		out.Logged = append(out.Logged, string(line))
	}
	return nil
}

// compare compares the newest sequences of the stream with the log, and returns what it
// found; empty: nothing.
func (w *headsWalk) compare(ctx context.Context, note *tlog.Note) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	next := note.Next()
	from := max(note.First, next-min(next, headsCompared))
	if w.log == note.Origin.String() && time.Since(w.at) < headsAgain {
		from = max(from, min(w.compared, next))
	} else {
		w.at = time.Now()
	}
	for from < next {
		r, err := w.b.logs.Load().Verify(ctx, wire.BrokerAccount, store.StreamHeads, &note.Checkpoint, from)
		if err != nil {
			w.log = ""
			return "", err
		}
		if r.Finding != nil {
			w.log = ""
			return fmt.Sprintf("sequence %d of %s was %s: %s", r.Finding.Sequence, store.StreamHeads, r.Finding.What, r.Finding.Detail), nil
		}
		from = r.Next
	}
	w.log, w.compared = note.Origin.String(), next
	return "", nil
}

// headsStandStill says why the log of the heads does not go on, if somebody must look at
// it: it stands still, or it has not covered for long what is stored. Empty: it goes on.
func headsStandStill(b *Broker) string {
	for _, st := range logStates(b) {
		if st.Tenant != wire.BrokerAccount {
			continue
		}
		if err := st.Trouble(time.Now()); errors.Is(err, translog.ErrDisagrees) {
			return err.Error()
		}
	}
	return ""
}

// chainOfHead names the chain of a head; empty for what is none.
func chainOfHead(_ string, data []byte) string {
	at, _, ok := auditlog.HeadPosition(data)
	if !ok {
		return ""
	}
	return at.Node + "/" + at.Chain
}

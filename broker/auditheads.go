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
	// headsLate is how long a head may be stored and in no checkpoint before the trail is not
	// proved by the log: a checkpoint is made every second, and a change of leader is over.
	headsLate = 2 * time.Minute
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
func loggedHeads(b *Broker) func(ctx context.Context, tenant, since string) (adminapi.AuditHeads, error) {
	w := &headsWalk{b: b}
	return func(ctx context.Context, tenant, since string) (adminapi.AuditHeads, error) {
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
		if err == nil {
			err = w.since(ctx, &out, note, since)
		}
		if err == nil {
			err = lateHeads(note, held, time.Now())
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

// since adds the proof that the log begins with a checkpoint, if one is given. Whether it is
// signed, and of this log, is the caller's to check: without a proof it finds out.
func (w *headsWalk) since(ctx context.Context, out *adminapi.AuditHeads, note *tlog.Note, text string) error {
	if text == "" {
		return nil
	}
	older, err := tlog.ParseNote([]byte(text))
	if err != nil {
		return fmt.Errorf("the checkpoint to begin with: %w", err)
	}
	if older.Origin.String() != note.Origin.String() || older.Size == 0 || older.Size >= note.Size {
		return nil
	}
	hashes, err := w.b.logs.Load().Consistency(ctx, wire.BrokerAccount, store.StreamHeads, &older.Checkpoint, &note.Checkpoint)
	for i := range hashes {
		out.Consistency = append(out.Consistency, hashes[i][:])
	}
	return err
}

// lines puts what is in the stream into the answer.
func (w *headsWalk) lines(out *adminapi.AuditHeads, note *tlog.Note, held []translog.Held) error {
	out.Checkpoint = string(note.Bytes())
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

// lateHeads says that the log does not go on: heads wait for a checkpoint for too long. It
// goes by what is stored, as this node need not be the one that writes the log.
func lateHeads(note *tlog.Note, held []translog.Held, now time.Time) error {
	for i := range held {
		if since := time.Unix(0, held[i].Since); !held[i].Covered && now.Sub(since) > headsLate {
			return fmt.Errorf("it does not go on: what %s has since %s is in no checkpoint, and the last one is of %s: signet status says why", store.StreamHeads, since.UTC().Format(time.RFC3339), note.Time.Format(time.RFC3339))
		}
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
		if r.Unproven > 0 { // they may have been cut off
			w.log = ""
			return "", fmt.Errorf("%d heads before sequence %d of %s are gone: %s", r.Unproven, r.Next, store.StreamHeads, r.Doubt)
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

package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/broker/store"
	"github.com/signetbus/signet/broker/translog"
	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/internal/auditlog"
	"github.com/signetbus/signet/internal/wire"
)

// headsCompared bounds the sequences of the stream HEADS, the newest, that one audit.heads
// compares with the log.
const headsCompared = 100_000

// headsSource is the log of the heads of the audit trail.
func headsSource(set *policy.Set) translog.Source {
	return translog.Source{Tenant: wire.BrokerAccount, Account: wire.BrokerAccount, Stream: store.StreamHeads, Room: store.HeadsLogRoom(set)}
}

// loggedHeads is admin.Recording.Heads: the newest head of each chain of a tenant with its
// proof, after a look whether the stream is as its log has it.
func loggedHeads(b *Broker) func(context.Context, string) (adminapi.AuditHeads, error) {
	return func(ctx context.Context, tenant string) (adminapi.AuditHeads, error) {
		out := adminapi.AuditHeads{Tenant: tenant}
		service := b.logs.Load()
		if service == nil {
			out.Unlogged = "the logs are not started yet; ask again"
			return out, nil
		}
		note, held, err := service.Newest(ctx, wire.BrokerAccount, store.StreamHeads, wire.PrefixHeads+tenant+".>", adminapi.MaxAuditHeads, chainOfHead)
		switch {
		case errors.Is(err, translog.ErrNotLogged):
			out.Unlogged = err.Error()
			return out, nil
		case errors.Is(err, translog.ErrDisagrees):
			out.Finding = err.Error()
			return out, nil
		case err != nil:
			return out, err
		}
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
				return out, err
			}
			out.Logged = append(out.Logged, string(line))
		}
		next := note.Next()
		from := max(note.First, next-min(next, headsCompared))
		for from < next && err == nil && out.Finding == "" {
			var r *translog.Result
			if r, err = service.Verify(ctx, wire.BrokerAccount, store.StreamHeads, &note.Checkpoint, from); err != nil {
				break
			}
			if from = r.Next; r.Finding != nil {
				out.Finding = fmt.Sprintf("sequence %d of %s was %s: %s", r.Finding.Sequence, store.StreamHeads, r.Finding.What, r.Finding.Detail)
			}
		}
		if errors.Is(err, translog.ErrDisagrees) {
			out.Finding, err = err.Error(), nil
		}
		if out.Finding == "" {
			out.Finding = headsStandStill(b)
		}
		return out, err
	}
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

package broker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/broker/internal/embed"
	"github.com/signetbus/signet/broker/internal/integrity"
	"github.com/signetbus/signet/broker/ops"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/broker/store"
	"github.com/signetbus/signet/broker/translog"
	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
	"github.com/signetbus/signet/signing/tlog"
)

// CheckpointsConfig says where checkpoints of the logs go beside the store.
type CheckpointsConfig struct {
	// Sink is a file, or an existing folder in which each log has one, to which the last
	// checkpoint of each log is appended once a minute. Better on another machine's
	// volume: whoever can rewrite the store should not be able to rewrite it. Default:
	// none.
	Sink string `yaml:"sink"`
}

// startLogs keeps the logs of the streams whose policy says so. They wait by themselves
// for the broker's own streams.
func startLogs(b startup, m *material) error {
	cfg := translog.Config{
		Cluster: b.cfg.Name, Upstream: b.server, Sink: b.cfg.Checkpoints.Sink, Attested: b.attested, Log: b.component("log"),
		Tenant: b.store.Conn, System: func() (*nats.Conn, error) { return b.store.Conn(wire.BrokerAccount) },
		Leads:  func(account, stream string) bool { return embed.Leads(b.server, account, stream) },
		Signer: func() *signing.Signer { return b.material.Load().signer },
		Ring:   func() *keyring.Ring { return b.material.Load().ring }, RingDocument: func() []byte { return b.material.Load().ringDoc },
	}
	if b.cfg.Cluster != nil {
		cfg.Cluster = b.cfg.Cluster.Name
	}
	if b.barrier != nil {
		cfg.Durable = b.barrier.Wait
	}
	cfg.Follow = func(account, stream string, from uint64) (translog.Follower, error) {
		f, err := integrity.Follow(b.cfg.State, b.damage.key, account, stream, from)
		if err != nil {
			return nil, err
		}
		return &storeFollower{Follower: f}, nil
	}
	cfg.Lacks = func(account, stream string) uint64 { return b.damage.lacks(account + "/" + stream) }
	service, err := translog.New(cfg)
	if err != nil {
		return err
	}
	service.Set(loggedStreams(m.policy))
	b.logs.Store(service) // metrics and health have been asking since the operations port is open
	b.running("logs", service.Shutdown)
	return nil
}

// storeFollower is integrity.Follower as a log takes it.
type storeFollower struct {
	*integrity.Follower
	m integrity.Stored
}

func (f *storeFollower) Next(r *translog.Record) (bool, error) {
	ok, err := f.Follower.Next(&f.m)
	*r = translog.Record(f.m)
	return ok, err
}

// loggedStreams are the streams of all tenants that have a log, and the heads of the audit
// trail.
func loggedStreams(set *policy.Set) []translog.Source {
	out := []translog.Source{headsSource(set)}
	for _, t := range set.Tenants() {
		for i := range t.Streams {
			if t.Streams[i].Log {
				s := &t.Streams[i]
				out = append(out, translog.Source{Tenant: t.Name, Account: t.Name, Stream: s.Name, Room: store.LogRoom(s.MaxBytes)})
			}
		}
	}
	return out
}

// logStates are those of all logs; none before the logs are started.
func logStates(b *Broker) []translog.State {
	if s := b.logs.Load(); s != nil {
		return s.States()
	}
	return nil
}

// logHealth says which logs of a tenant stand still, are behind or run out of room on
// this node.
func (b view) logHealth(tenant string) adminapi.HealthPart {
	h := adminapi.HealthPart{Part: "log", OK: true}
	var text []string
	for _, st := range logStates(b.Broker) {
		if st.Tenant != tenant && st.Tenant != wire.BrokerAccount { // the log of the heads is everybody's
			continue
		}
		err := st.Trouble(time.Now())
		switch {
		case err != nil && st.Tenant == wire.BrokerAccount:
			text = append(text, fmt.Sprintf("log of the heads of the audit trail (%s): %v: signet audit verify", st.Stream, err))
		case errors.Is(err, translog.ErrDisagrees):
			text = append(text, fmt.Sprintf("log of %s: %v: signet log verify %s", st.Stream, err, st.Stream))
		case err != nil:
			text = append(text, fmt.Sprintf("log of %s: %v", st.Stream, err))
		}
	}
	if len(text) > 0 {
		h.OK, h.Detail = false, strings.Join(text, "; ")
	}
	return h
}

// logMetrics are the metrics of the logs.
func logMetrics(b *Broker) []ops.Source {
	each := func(name, help string, kind ops.Kind, read func(*translog.State) float64) ops.Source {
		return ops.Source{Name: name, Help: help, Kind: kind, Labels: []string{"tenant", "stream"}, Read: func(emit func(float64, ...string)) {
			for _, st := range logStates(b) {
				emit(read(&st), st.Tenant, st.Stream)
			}
		}}
	}
	return []ops.Source{
		each("signet_log_writing", "1 while this node writes the log of the stream.", ops.Gauge, func(s *translog.State) float64 {
			if s.Leading {
				return 1
			}
			return 0
		}),
		each("signet_log_disagrees", "1 while the log stands still because the stream is not as it was logged.", ops.Gauge, func(s *translog.State) float64 {
			if errors.Is(s.Fault, translog.ErrDisagrees) {
				return 1
			}
			return 0
		}),
		each("signet_log_size", "Leaves in the last checkpoint that this node has published.", ops.Gauge, func(s *translog.State) float64 { return float64(s.Size) }),
		each("signet_log_lag_events", "Events that are stored and in no checkpoint, where this node writes the log.", ops.Gauge, func(s *translog.State) float64 {
			if !s.Leading {
				return 0
			}
			return float64(s.Lag())
		}),
		each("signet_log_behind_seconds", "How long something stored waits for a checkpoint, where this node writes the log; 0: nothing does.", ops.Gauge, func(s *translog.State) float64 {
			if s.Behind.IsZero() {
				return 0
			}
			return max(time.Since(s.Behind).Seconds(), 0)
		}),
		each("signet_log_used_bytes", "Bytes that the log takes in LOG, where this node writes it.", ops.Gauge, func(s *translog.State) float64 { return float64(s.Used) }),
		each("signet_log_room_bytes", "Bytes that the log may take in LOG, where this node writes it.", ops.Gauge, func(s *translog.State) float64 { return float64(s.Room) }),
		each("signet_log_checkpoints_total", "Checkpoints that this node has published.", ops.Counter, func(s *translog.State) float64 { return float64(s.Checkpoints) }),
		each("signet_log_absent_total", "Sequences without an event that this node has logged as absent.", ops.Counter, func(s *translog.State) float64 { return float64(s.Absent) }),
		each("signet_log_by_server", "1 where the log of the stream is read from the server: its files cannot be read, or it has holes.", ops.Gauge, func(s *translog.State) float64 {
			if s.ByServer {
				return 1
			}
			return 0
		}),
		each("signet_log_attested_total", "Leaves for which this node's gate had the digest of the event already.", ops.Counter, func(s *translog.State) float64 { return float64(s.Attested) }),
		each("signet_log_failures_total", "Times that the log did not go on at once.", ops.Counter, func(s *translog.State) float64 { return float64(s.Failures) }),
	}
}

// logs serves the admin area log.
type logs struct{ s *translog.Service }

// refusal words an error for the caller.
func (logs) refusal(err error) error {
	code := wire.CodeUnavailable
	switch {
	case err == nil:
		return nil
	case errors.Is(err, translog.ErrNotLogged), errors.Is(err, translog.ErrLetGo), errors.Is(err, tlog.ErrSize):
		code = wire.CodeNotFound
	case errors.Is(err, translog.ErrDisagrees):
		code = wire.CodeConflict
	case errors.Is(err, tlog.ErrMalformed):
		code = wire.CodeRequestMalformed
	}
	return wire.Refuse(code, "log", err.Error())
}

func (l logs) List(ctx context.Context, tenant string, _ struct{}) (adminapi.LogList, error) {
	out := adminapi.LogList{Logs: []adminapi.LogStatus{}}
	known := map[string]translog.State{}
	for _, st := range l.s.States() {
		if st.Tenant == tenant {
			known[st.Stream] = st
		}
	}
	for _, stream := range l.s.Streams(tenant) {
		here := known[stream]
		st := adminapi.LogStatus{Stream: stream, Behind: here.Behind}
		note, last, err := l.s.Last(ctx, tenant, stream)
		switch {
		case err != nil:
			st.Fault = err.Error()
		case here.Fault != nil:
			st.Fault = here.Fault.Error()
		default:
			if err := here.Trouble(time.Now()); err != nil {
				st.Fault = err.Error()
			}
		}
		if note != nil {
			st.Origin, st.First, st.Size, st.Time, st.LastSeq = note.Origin.String(), note.First, note.Size, note.Time, last
			st.Lag = (&translog.State{First: note.First, Size: note.Size, LastSeq: last}).Lag()
		}
		out.Logs = append(out.Logs, st)
	}
	return out, nil
}

func (l logs) Checkpoint(ctx context.Context, tenant string, q adminapi.LogStreamRequest) (adminapi.LogCheckpoint, error) {
	note, last, err := l.s.Last(ctx, tenant, q.Stream)
	if err != nil {
		return adminapi.LogCheckpoint{}, l.refusal(err)
	}
	return adminapi.LogCheckpoint{Checkpoint: string(note.Bytes()), LastSeq: last}, nil
}

// noteOf reads a checkpoint of a tenant's log that a caller sent.
func noteOf(tenant, text string) (*tlog.Note, error) {
	n, err := tlog.ParseNote([]byte(text))
	if err != nil {
		return nil, err
	}
	if n.Origin.Tenant != tenant {
		return nil, fmt.Errorf("%w: a checkpoint of another tenant's log, %s", tlog.ErrMalformed, n.Origin)
	}
	return n, nil
}

func (l logs) Verify(ctx context.Context, tenant string, q adminapi.LogVerifyRequest) (adminapi.LogVerified, error) {
	var note *tlog.Note
	var err error
	if q.Checkpoint == "" {
		note, _, err = l.s.Last(ctx, tenant, q.Stream)
	} else if note, err = noteOf(tenant, q.Checkpoint); err == nil && note.Origin.Stream != q.Stream {
		err = fmt.Errorf("%w: a checkpoint of the log of %s", tlog.ErrMalformed, note.Origin.Stream)
	}
	if err != nil {
		return adminapi.LogVerified{}, l.refusal(err)
	}
	r, err := l.s.Verify(ctx, tenant, q.Stream, &note.Checkpoint, q.From)
	if err != nil {
		return adminapi.LogVerified{}, l.refusal(err)
	}
	out := adminapi.LogVerified{
		Checkpoint: string(note.Bytes()), Next: r.Next, End: note.Next(), Compared: r.Compared, Absent: r.Absent, Aged: r.Aged, Unproven: r.Unproven, Doubt: r.Doubt,
	}
	if r.Finding != nil {
		out.Finding = &adminapi.LogFinding{Sequence: r.Finding.Sequence, What: r.Finding.What, Detail: r.Finding.Detail}
	}
	return out, nil
}

func (l logs) Consistency(ctx context.Context, tenant string, q adminapi.LogConsistencyRequest) (adminapi.LogConsistency, error) {
	older, err := noteOf(tenant, q.Old)
	if err != nil {
		return adminapi.LogConsistency{}, l.refusal(err)
	}
	newer, err := noteOf(tenant, q.New)
	if err != nil {
		return adminapi.LogConsistency{}, l.refusal(err)
	}
	proof, err := l.s.Consistency(ctx, tenant, newer.Origin.Stream, &older.Checkpoint, &newer.Checkpoint)
	out := adminapi.LogConsistency{Hashes: [][]byte{}}
	for i := range proof {
		out.Hashes = append(out.Hashes, proof[i][:])
	}
	return out, l.refusal(err)
}

func (l logs) Find(ctx context.Context, tenant string, q adminapi.LogFindRequest) (adminapi.LogFound, error) {
	seq, next, err := l.s.Find(ctx, tenant, q.Stream, q.ID, q.From)
	return adminapi.LogFound{Sequence: seq, Next: next}, l.refusal(err)
}

func (l logs) Prove(ctx context.Context, tenant string, q adminapi.LogProveRequest) (adminapi.LogProof, error) {
	doc, err := l.s.Prove(ctx, tenant, q.Stream, q.First, q.Last)
	if err != nil {
		return adminapi.LogProof{}, l.refusal(err)
	}
	id := rand.Text()
	l.s.KeepProof(tenant, id, doc)
	return adminapi.LogProof{ID: id, Bytes: len(doc)}, nil
}

func (l logs) Part(_ context.Context, tenant string, q adminapi.LogPartRequest) (adminapi.LogPart, error) {
	doc := l.s.KeptProof(tenant, q.ID)
	if doc == nil || q.Offset < 0 || q.Offset > len(doc) {
		return adminapi.LogPart{}, wire.Refuse(wire.CodeNotFound, "log", "no such proof, or no longer: ask for it again")
	}
	return adminapi.LogPart{Offset: q.Offset, Data: doc[q.Offset:min(len(doc), q.Offset+adminapi.MaxChunkBytes)]}, nil
}

func (l logs) Restart(ctx context.Context, tenant string, q adminapi.LogStreamRequest) (struct{}, error) {
	return struct{}{}, l.refusal(l.s.Restart(ctx, tenant, q.Stream))
}

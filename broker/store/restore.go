package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/broker/policy"
)

// A restore has one moment at which it counts. Until then the streams that it fills
// are staged: they have the name and the settings of the policy, but take a subject
// on which nobody can publish, and their metadata says which restore they are of.
// Then the last of them, by name, is marked, which is one write; from there on the
// restore goes forward, whatever happens: settle gives each of them its subjects,
// the marked one last. A broker that finds staged streams of its own at its start
// finishes the restore if there is a mark, and else takes them away.
const (
	metaRestore     = "signet.restore"        // id of the restore
	metaRestoreNode = "signet.restore.node"   // the broker that does it: another's are left alone
	metaRestoreMark = "signet.restore.commit" // the mark
	prefixStaged    = "$SIGNET.RESTORE."      // and the stream's name
)

// Errors of a restore.
var (
	// ErrNotEmpty: something is or was stored in a stream that is to be restored.
	ErrNotEmpty = errors.New("store: the stream is not empty")
	// ErrNotDeclared: the policy does not declare a stream of the backup.
	ErrNotDeclared = errors.New("store: the policy does not declare the stream")
	// ErrNotRestored: the server did not restore what it was given.
	ErrNotRestored = errors.New("store: not restored")
)

// restoreChunk is what is sent to the server at once; it fits every max_payload.
const restoreChunk = 64 << 10

const (
	// undoLimit bounds taking back what a restore has done; the next start does the rest.
	undoLimit = 2 * time.Minute
	// deletedLimit bounds the wait for what an earlier deletion has left.
	deletedLimit = 30 * time.Second
)

// restoreTimeout bounds one chunk: the server may compact its blocks meanwhile.
const restoreTimeout = time.Minute

// Restoring is a stream of a restore.
type Restoring struct {
	Name     string
	FirstSeq uint64 // of the messages in it; 0: none
	EndSeq   uint64 // last sequence of the stream
	Messages uint64
	// Archive opens the snapshot. It is read once, and may fail at its end.
	Archive func() (io.Reader, error)
}

// CheckRestore says whether the streams may be restored: the policy declares them,
// and nothing is or was stored in them. The error joins all faults.
//
// Errors: ErrNotDeclared, ErrNotEmpty, ErrNoLeader, ErrNoAccount, ErrServer, ErrClosed, or the
// connection's.
func (s *Store) CheckRestore(ctx context.Context, t *policy.Tenant, streams []Restoring) error {
	a, err := s.account(t.Name)
	if err != nil {
		return err
	}
	l, err := a.list(ctx)
	if err != nil {
		return err
	}
	infos := l.infos
	var faults []error
	for i := range streams {
		name := streams[i].Name
		faults = append(faults, l.fault([]string{name}))
		info, exists := infos[name]
		switch {
		case declaredStream(t, name, s.cfg.Nodes) == nil:
			faults = append(faults, fmt.Errorf("%w: %s: declare it, or leave it out of the restore", ErrNotDeclared, name))
		case !exists:
		case s.elsewhere(&info.Config):
			faults = append(faults, fmt.Errorf("%w: %s is part of a restore that the broker %s has not ended: start that broker, which ends it",
				ErrNotEmpty, name, info.Config.Metadata[metaRestoreNode]))
		case info.State.LastSeq > 0:
			faults = append(faults, fmt.Errorf("%w: %s has stored up to sequence %d: restore into a new cluster, or leave it out", ErrNotEmpty, name, info.State.LastSeq))
		case info.State.Consumers > 0:
			faults = append(faults, fmt.Errorf("%w: %s has %d consumers, which the restore would delete: stop their services first", ErrNotEmpty, name, info.State.Consumers))
		}
	}
	return errors.Join(faults...)
}

func declaredStream(t *policy.Tenant, name string, nodes int) *jetstream.StreamConfig {
	for _, cfg := range declared(t, nodes) {
		if cfg.Name == name {
			return &cfg
		}
	}
	return nil
}

// DeclaredBytes returns how many bytes the policy gives a stream of t; false if it
// declares no such stream.
func DeclaredBytes(t *policy.Tenant, stream string) (int64, bool) {
	cfg := declaredStream(t, stream, 1)
	if cfg == nil {
		return 0, false
	}
	return cfg.MaxBytes, true
}

// Restore fills streams of t from a backup, all or none: until every one of them is
// whole and durable no subject reaches them, and on an error, also after a crash,
// they are empty as before. id names the restore. Nothing of the backup is verified
// here but its counts. The policy does not change meanwhile.
//
// Errors: those of CheckRestore and of the archives, ErrNotRestored, ErrSyncFailed.
func (s *Store) Restore(ctx context.Context, t *policy.Tenant, id string, streams []Restoring) (err error) {
	s.apply.Lock()
	defer s.apply.Unlock()
	a, err := s.account(t.Name)
	if err != nil {
		return err
	}
	if err := s.CheckRestore(ctx, t, streams); err != nil {
		return err
	}
	streams = slices.Clone(streams)
	slices.SortFunc(streams, func(x, y Restoring) int { return strings.Compare(x.Name, y.Name) })
	if len(streams) == 0 {
		return nil
	}
	defer func() {
		if err == nil {
			return
		}
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
		defer cancel()
		err = errors.Join(err, s.settle(undo, a, t), s.remake(undo, t))
	}()
	for i := range streams {
		err := a.stage(ctx, s.staged(t, streams[i].Name, id), &streams[i])
		if err == nil {
			err = covered(ctx, a, declaredStream(t, streams[i].Name, s.cfg.Nodes))
		}
		if err != nil {
			return fmt.Errorf("tenant %s: stream %s: %w", t.Name, streams[i].Name, err)
		}
	}
	if err := s.durable(ctx); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx) // from here on it goes forward
	mark := s.staged(t, streams[len(streams)-1].Name, id)
	mark.Metadata[metaRestoreMark] = id
	if err := a.update(ctx, mark); err != nil {
		return err
	}
	if err := s.settle(ctx, a, t); err != nil {
		return err
	}
	return s.durable(ctx)
}

// remake makes the streams that t declares and that are missing.
func (s *Store) remake(ctx context.Context, t *policy.Tenant) error {
	steps, err := s.plan(ctx, t.Name, declared(t, s.cfg.Nodes))
	if err := decisive([]error{CheckReplicas(t, s.cfg.Nodes), err}); err != nil {
		return err
	}
	return carryOut(ctx, s, steps)
}

// staged is the configuration of a stream while it is being restored.
func (s *Store) staged(t *policy.Tenant, name, id string) *jetstream.StreamConfig {
	cfg := declaredStream(t, name, s.cfg.Nodes)
	cfg.Subjects = []string{prefixStaged + name}
	cfg.AllowDirect = false
	cfg.Metadata = map[string]string{metaRestore: id, metaRestoreNode: s.cfg.Node}
	return cfg
}

// stage takes the empty stream away and makes the staged one of the archive. The
// stream loses its subjects first: an event that comes between the look at it and
// its deletion is refused, or it is seen.
func (a *account) stage(ctx context.Context, cfg *jetstream.StreamConfig, r *Restoring) error {
	var info jetstream.StreamInfo
	switch err := a.request(ctx, "STREAM.INFO."+cfg.Name, nil, &info); {
	case missing(err):
	case err != nil:
		return err
	default:
		// Without the metadata: should it turn out to hold something, it is no stream of
		// the restore, and nothing may delete it.
		closed := *cfg
		closed.Metadata = nil
		if err := a.update(ctx, &closed); err != nil {
			return err
		}
		if err := a.fence(ctx, &closed); err != nil {
			return err // Restore gives it its subjects back
		}
		if err := a.remove(ctx, cfg.Name); err != nil {
			return err
		}
	}
	state, err := a.load(ctx, cfg, r)
	if err != nil {
		return err
	}
	if state.LastSeq != r.EndSeq || state.Msgs != r.Messages && cfg.MaxAge == 0 {
		return fmt.Errorf("%w: %d messages up to %d were stored, %d up to %d were given: does the stream declare less room than the backup's had?",
			ErrNotRestored, state.Msgs, state.LastSeq, r.Messages, r.EndSeq)
	}
	return nil
}

// remove deletes a stream.
func (a *account) remove(ctx context.Context, name string) error {
	if a.deleted != nil {
		wait, cancel := context.WithTimeout(ctx, deletedLimit)
		defer cancel()
		if err := a.deleted(wait, a.tenant, name); err != nil {
			return fmt.Errorf("store: %s: %w", name, err)
		}
	}
	return a.request(ctx, "STREAM.DELETE."+name, nil, &struct{}{})
}

// fence returns when everything that was on its way into the stream is in it or
// refused, and fails if there was something. It publishes what the server must
// refuse, after all that came before it.
func (a *account) fence(ctx context.Context, cfg *jetstream.StreamConfig) error {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	m := nats.NewMsg(cfg.Subjects[0])
	m.Header.Set(nats.ExpectedLastSeqHdr, strconv.FormatUint(1<<62, 10))
	answer, err := a.askAgain(ctx, m, askFirst)
	if err != nil {
		return fmt.Errorf("store: %s: %w", cfg.Name, err)
	}
	var refused struct {
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(answer.Data, &refused); err != nil || refused.Error == nil {
		return fmt.Errorf("%w: %s took what it must refuse", ErrServer, cfg.Name)
	}
	var info jetstream.StreamInfo
	if err := a.request(ctx, "STREAM.INFO."+cfg.Name, nil, &info); err != nil {
		return err
	}
	if info.State.LastSeq > 0 || info.State.Consumers > 0 {
		return fmt.Errorf("%w: something was stored, or a consumer made, while the restore began", ErrNotEmpty)
	}
	return nil
}

// load has the server make the stream of the archive, and returns its state.
func (a *account) load(ctx context.Context, cfg *jetstream.StreamConfig, r *Restoring) (*jetstream.StreamState, error) {
	request := map[string]any{"config": cfg, "state": map[string]uint64{
		"messages": r.Messages, "first_seq": max(r.FirstSeq, 1), "last_seq": r.EndSeq,
	}}
	var begin struct {
		Deliver string `json:"deliver_subject"`
	}
	if err := a.request(ctx, "STREAM.RESTORE."+cfg.Name, request, &begin); err != nil {
		return nil, err
	}
	if err := a.send(ctx, begin.Deliver, r); err != nil {
		// An end that comes too early makes the server stop at once, so that it does
		// nothing to the stream any more when it is deleted.
		_, _ = a.chunk(context.WithoutCancel(ctx), begin.Deliver, nil)
		return nil, err
	}
	answer, err := a.chunk(ctx, begin.Deliver, nil)
	if err != nil {
		return nil, err
	}
	var made jetstream.StreamInfo
	if err := json.Unmarshal(answer, &made); err != nil {
		return nil, fmt.Errorf("store: answer to a restore: %w", err)
	}
	var info jetstream.StreamInfo
	if err := a.request(ctx, "STREAM.INFO."+cfg.Name, nil, &info); err != nil {
		return nil, err
	}
	for _, d := range differences(&info.Config, cfg) {
		return nil, fmt.Errorf("%w: %s is %v, not %v", ErrDrift, d.field, d.have, d.want)
	}
	return &info.State, nil
}

// send sends a whole archive.
func (a *account) send(ctx context.Context, subject string, r *Restoring) error {
	archive, err := r.Archive()
	if err != nil {
		return err
	}
	buf := make([]byte, restoreChunk)
	for {
		n, err := io.ReadFull(archive, buf)
		if n > 0 {
			if _, err := a.chunk(ctx, subject, buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// chunk sends one part of an archive and waits until the server has taken it, which
// is its flow control. An empty one is the end.
func (a *account) chunk(ctx context.Context, subject string, data []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, restoreTimeout)
	defer cancel()
	m := nats.NewMsg(subject)
	m.Data = data
	answer, err := a.askAgain(ctx, m, 2*restoreTimeout) // a part is sent once
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotRestored, err)
	}
	var failed struct {
		Error *jetstream.APIError `json:"error"`
	}
	if len(answer.Data) > 0 {
		if err := json.Unmarshal(answer.Data, &failed); err != nil {
			return nil, fmt.Errorf("store: answer to a restore: %w", err)
		}
	}
	if failed.Error != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotRestored, failed.Error)
	}
	return answer.Data, nil
}

func (a *account) update(ctx context.Context, cfg *jetstream.StreamConfig) error {
	return (&step{acc: a, want: *cfg, exists: true}).do(ctx)
}

// settleTenant is settle for a tenant whose account may be new.
func (s *Store) settleTenant(ctx context.Context, t *policy.Tenant) error {
	a, err := s.account(t.Name)
	if err != nil {
		return err
	}
	return s.settle(ctx, a, t)
}

// settle ends what restores of this broker have left: forward where there is a mark,
// back where there is none. The caller holds apply.
func (s *Store) settle(ctx context.Context, a *account, t *policy.Tenant) error {
	l, err := a.list(ctx)
	if err != nil {
		return err
	}
	infos := l.infos // what is left in others is ended when they are back
	marked := map[string]bool{}
	var names []string
	for name, info := range infos {
		meta := info.Config.Metadata
		if meta[metaRestore] == "" || meta[metaRestoreNode] != s.cfg.Node {
			continue
		}
		names = append(names, name)
		if mark := meta[metaRestoreMark]; mark != "" {
			marked[mark] = true
		}
	}
	slices.Sort(names) // the marked one is the last
	for _, name := range names {
		cfg := &infos[name].Config
		if !marked[cfg.Metadata[metaRestore]] {
			err = a.remove(ctx, name)
		} else {
			err = a.update(ctx, settled(t, s.cfg.Nodes, cfg))
		}
		if err != nil {
			return fmt.Errorf("tenant %s: %w", t.Name, err)
		}
	}
	return nil
}

// settled is the configuration of a restored stream. One that the policy dropped
// meanwhile keeps its data, as dropped streams do.
func settled(t *policy.Tenant, nodes int, have *jetstream.StreamConfig) *jetstream.StreamConfig {
	if cfg := declaredStream(t, have.Name, nodes); cfg != nil {
		return cfg
	}
	cfg := *have
	cfg.Metadata = maps.Clone(have.Metadata)
	maps.DeleteFunc(cfg.Metadata, func(k, _ string) bool {
		return strings.HasPrefix(k, metaRestore) || strings.HasPrefix(k, "_nats.")
	})
	if len(cfg.Metadata) == 0 {
		cfg.Metadata = nil
	}
	return &cfg
}

// elsewhere reports whether a stream belongs to a restore that another broker does.
func (s *Store) elsewhere(cfg *jetstream.StreamConfig) bool {
	return cfg.Metadata[metaRestore] != "" && cfg.Metadata[metaRestoreNode] != s.cfg.Node
}

package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

// Errors of ApplyPolicy.
var (
	// ErrImmutable: a field of an existing stream cannot be changed.
	ErrImmutable = errors.New("store: a stream's field cannot be changed")
	// ErrWouldLose: a change would delete stored messages, or leave less room than
	// they take.
	ErrWouldLose = errors.New("store: the change would lose stored messages")
	// ErrDrift: the server did not make of a stream what it was told to.
	ErrDrift = errors.New("store: a stream is not as declared")
)

// Error codes of the server.
const (
	subjectOverlap jetstream.ErrorCode = 10065 // subjects of another stream
	noPeers        jetstream.ErrorCode = 10005 // nodes are missing that should hold a copy
	notCreated     jetstream.ErrorCode = 10049 // a stream's files could not be made
	notAvailable   jetstream.ErrorCode = 10008 // the cluster has none now, or is starting
)

// A stream that could not be made is tried again, after createRetry and then each time
// after twice as long: nats-server removes the folders of an account without streams in
// the background, also when one is being made there (2.15.2).
const (
	createRetry = 20 * time.Millisecond
	createLast  = 32 * createRetry
)

// peersRetry is between two tries to make a stream while nodes are missing.
const peersRetry = 250 * time.Millisecond

// step is one stream that has to be made or changed.
type step struct {
	acc    *account
	want   jetstream.StreamConfig
	exists bool
}

// ApplyPolicy makes the streams and buckets of all tenants what set declares, and
// waits until that is durable. The tenants must have their accounts, with at least
// Reservation bytes each. It deletes nothing.
//
// All tenants are looked at before any is changed: where set asks for something
// that cannot or must not be done, nothing at all is done and the error joins every
// fault, each with tenant, stream and field. An error of the server midway leaves
// what was done; call it again.
//
// A stream without a leader is not taken for absent: what is to be changed in it, or is
// not known of it, is ErrNoLeader.
//
// Errors: ErrImmutable, ErrWouldLose, ErrNoLeader, ErrNoAccount, ErrDrift, ErrServer, ErrClosed,
// ErrSyncFailed, or the connection's.
func (s *Store) ApplyPolicy(ctx context.Context, set *policy.Set) error {
	s.apply.Lock()
	defer s.apply.Unlock()
	var steps []step
	var faults []error
	for _, t := range set.Tenants() {
		if err := s.settleTenant(ctx, t); err != nil {
			faults = append(faults, err)
			continue
		}
		more, err := s.plan(ctx, t.Name, declared(t, s.cfg.Nodes))
		faults = append(faults, CheckReplicas(t, s.cfg.Nodes), err)
		steps = append(steps, more...)
	}
	if err := decisive(faults); err != nil {
		return err
	}
	return carryOut(ctx, s, steps)
}

// carryOut does the steps and waits until that is durable.
func carryOut(ctx context.Context, s *Store, steps []step) error {
	if len(steps) == 0 {
		return nil
	}
	if err := run(ctx, steps); err != nil {
		return err
	}
	return s.durable(ctx)
}

// Reservation is how many bytes the account of t needs while the policy changes to
// t: for each stream the larger of what is declared and what it has, streams that t
// no longer declares included. For a tenant without an account it is AccountBytes.
//
// Errors: ErrNoLeader where not even the size of a stream is known; ErrServer, ErrClosed, or the connection's.
func (s *Store) Reservation(ctx context.Context, t *policy.Tenant) (int64, error) {
	return reservation(ctx, s, t.Name, declared(t, s.cfg.Nodes))
}

func reservation(ctx context.Context, s *Store, name string, wanted []jetstream.StreamConfig) (int64, error) {
	a, err := s.account(name)
	if errors.Is(err, ErrNoAccount) {
		return allCopies(wanted), nil
	}
	if err != nil {
		return 0, err
	}
	l, err := a.list(ctx)
	if err == nil {
		err = l.fault(l.unknown())
	}
	if err != nil {
		return 0, err
	}
	have := maps.Clone(l.silent)
	for name, info := range l.infos {
		have[name] = &info.Config
	}
	var sum int64
	for _, cfg := range wanted {
		bytes := copies(&cfg)
		if old, ok := have[cfg.Name]; ok {
			bytes = max(bytes, copies(old))
			delete(have, cfg.Name)
		}
		sum = addSat(sum, bytes)
	}
	for _, cfg := range have {
		sum = addSat(sum, copies(cfg))
	}
	return sum, nil
}

// plan compares what an account should have with what is there.
func (s *Store) plan(ctx context.Context, name string, wanted []jetstream.StreamConfig) ([]step, error) {
	a, err := s.account(name)
	if err != nil {
		return nil, err
	}
	l, err := a.list(ctx)
	if err != nil {
		return nil, err
	}
	var steps []step
	var faults []error
	for _, want := range wanted {
		if cfg, silent := l.silent[want.Name]; silent {
			if cfg == nil || len(differences(cfg, &want)) > 0 && !s.elsewhere(cfg) {
				faults = append(faults, noLeader(name, want.Name))
			}
			continue
		}
		info, ok := l.infos[want.Name]
		if !ok {
			steps = append(steps, step{acc: a, want: want})
			continue
		}
		if s.elsewhere(&info.Config) {
			continue // another broker restores it, and gives it the policy's settings
		}
		if want.Name == wire.StreamDLQ && info.Config.DenyDelete {
			want.DenyDelete = true // of an earlier release: the server never takes it back
		}
		changed := false
		for _, d := range differences(&info.Config, &want) {
			changed = true
			if err := d.check(info, time.Now()); err != nil {
				faults = append(faults, fmt.Errorf("tenant %s: stream %s: %w", name, want.Name, err))
			}
		}
		if err := uncovered(ctx, a, &info.Config, &want); err != nil {
			faults = append(faults, fmt.Errorf("tenant %s: stream %s: %w", name, want.Name, err))
		}
		if changed {
			steps = append(steps, step{acc: a, want: want, exists: true})
		}
	}
	return steps, decisive(faults)
}

// decisive joins faults; ErrNoLeader, which may pass, only where there is nothing else.
func decisive(faults []error) error {
	final := slices.DeleteFunc(slices.Clone(faults), func(err error) bool { return err == nil || errors.Is(err, ErrNoLeader) })
	if len(final) > 0 {
		return errors.Join(final...)
	}
	return errors.Join(faults...)
}

// run does the steps, updates first, since they may free subjects and bytes. A
// subject that moves between two streams needs them in the right order, so what
// overlaps is tried again as long as something else succeeds.
func run(ctx context.Context, steps []step) error {
	slices.SortStableFunc(steps, func(x, y step) int {
		switch {
		case x.exists == y.exists:
			return 0
		case x.exists:
			return -1
		}
		return 1
	})
	for len(steps) > 0 {
		var later []step
		var overlaps []error
		for _, st := range steps {
			var api *jetstream.APIError
			switch err := st.do(ctx); {
			case err == nil:
			case errors.As(err, &api) && api.ErrorCode == subjectOverlap:
				later, overlaps = append(later, st), append(overlaps, err)
			default:
				return err
			}
		}
		if len(later) == len(steps) {
			return errors.Join(overlaps...)
		}
		steps = later
	}
	return nil
}

func (st *step) do(ctx context.Context) error {
	verb := "CREATE"
	if st.exists {
		verb = "UPDATE"
	}
	var info jetstream.StreamInfo
	err := st.request(ctx, verb, &info)
	if st.acc.clustered && errors.Is(err, context.DeadlineExceeded) {
		// A stream that has just lost its leader is listed as it was, and answers nothing.
		return fmt.Errorf("%w: %w", noLeader(st.acc.tenant, st.want.Name), err)
	}
	if err != nil {
		return fmt.Errorf("tenant %s: %w", st.acc.tenant, err)
	}
	// Fail closed: the server has adjusted configurations silently before.
	for _, d := range differences(&info.Config, &st.want) {
		return fmt.Errorf("%w: tenant %s: stream %s: %s is %v, not %v", ErrDrift, st.acc.tenant, st.want.Name, d.field, d.have, d.want)
	}
	return nil
}

func (st *step) request(ctx context.Context, verb string, info *jetstream.StreamInfo) error {
	for wait := createRetry; ; wait *= 2 {
		err := st.acc.insist(ctx, "STREAM."+verb+"."+st.want.Name, &st.want, info)
		var answer *jetstream.APIError
		if st.exists || wait > createLast || !errors.As(err, &answer) || answer.ErrorCode != notCreated {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
		}
	}
}

// difference is one field that is not as declared.
type difference struct {
	field      string // as in the JetStream API
	have, want any
	old, next  *jetstream.StreamConfig
}

// differences compares all fields. What the server adds by itself is left out.
func differences(have, want *jetstream.StreamConfig) []difference {
	old := *have
	old.Metadata = maps.Clone(old.Metadata)
	maps.DeleteFunc(old.Metadata, func(k, _ string) bool { return strings.HasPrefix(k, "_nats.") })
	if len(old.Metadata) == 0 {
		old.Metadata = nil
	}
	if old.MaxMsgSize == 0 {
		old.MaxMsgSize = -1
	}
	var out []difference
	x, y := reflect.ValueOf(old), reflect.ValueOf(*want)
	for i := range x.NumField() {
		if a, b := x.Field(i).Interface(), y.Field(i).Interface(); !reflect.DeepEqual(a, b) {
			name, _, _ := strings.Cut(x.Type().Field(i).Tag.Get("json"), ",")
			out = append(out, difference{field: name, have: a, want: b, old: &old, next: want})
		}
	}
	return out
}

// mutable are the fields that may change without touching what is stored. The
// server refuses some others; the rest (compression, sources, ...) no policy of this
// release can ask for, so a difference is somebody else's doing.
var mutable = map[string]bool{
	"description": true, "subjects": true, "max_consumers": true, "max_msgs": true,
	"discard": true, "discard_new_per_subject": true, "max_msg_size": true, "no_ack": true,
	"duplicate_window": true, "allow_rollup_hdrs": true, "allow_direct": true, "mirror_direct": true,
	"republish": true, "consumer_limits": true, "metadata": true, "num_replicas": true, "allow_atomic": true, "allow_batched": true,
}

// check returns why the difference must not be removed, or nil.
func (d *difference) check(info *jetstream.StreamInfo, now time.Time) error {
	lose := func(format string, v ...any) error {
		return fmt.Errorf("%w: %s from %v to %v: "+format, append([]any{ErrWouldLose, d.field, d.have, d.want}, v...)...)
	}
	state := &info.State
	switch d.field {
	case "max_bytes":
		if state.Bytes > uint64(d.next.MaxBytes) {
			return lose("%d bytes are stored", state.Bytes)
		}
		return nil
	case "max_age":
		shrinks := d.next.MaxAge > 0 && (d.old.MaxAge == 0 || d.next.MaxAge < d.old.MaxAge)
		if shrinks && state.Msgs > 0 && state.FirstTime.Before(now.Add(-d.next.MaxAge)) {
			return lose("the oldest message is of %s", state.FirstTime.UTC().Format(time.RFC3339))
		}
		return nil
	case "max_msgs_per_subject":
		// More messages than subjects: some subject has more than one, and which has
		// how many is not worth asking.
		shrinks := d.next.MaxMsgsPerSubject > 0 && (d.old.MaxMsgsPerSubject <= 0 || d.next.MaxMsgsPerSubject < d.old.MaxMsgsPerSubject)
		if shrinks && state.Msgs > state.NumSubjects {
			return lose("older revisions are stored")
		}
		return nil
	case "deny_delete", "deny_purge", "allow_msg_ttl", "allow_msg_schedules":
		if d.want == true { // the server never takes it back
			return nil
		}
	default:
		if mutable[d.field] {
			return nil
		}
	}
	return fmt.Errorf("%w: %s from %v to %v", ErrImmutable, d.field, d.have, d.want)
}

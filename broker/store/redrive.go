package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/internal/wire"
)

// RetryWindow is how long a repeated Nats-Msg-Id is known in the stream of the retry
// queues.
const RetryWindow = 10 * time.Minute

// ErrKept: the dead letters were made by a release that lets nothing be taken from them.
var ErrKept = errors.New("store: nothing can be taken from these dead letters")

// wrongLastSequence is the server's code for Nats-Expected-Last-Subject-Sequence.
const wrongLastSequence jetstream.ErrorCode = 10071

// DLQState is where the dead letters of a tenant are at one moment.
type DLQState struct {
	Created     time.Time // of the stream: another one has other letters under the same numbers
	First, Last uint64    // sequences; First is after Last when there are none
	Messages    uint64
	Bytes       uint64
	MaxBytes    int64
	Kept        bool // nothing can be taken from it: ErrKept
}

// StateOfDLQ returns the state of the dead letters of a tenant.
//
// Errors: ErrNotFound, ErrNoAccount, ErrServer, ErrClosed, or the connection's.
func StateOfDLQ(ctx context.Context, s *Store, tenant string) (DLQState, error) {
	a, err := s.account(tenant)
	if err != nil {
		return DLQState{}, err
	}
	var info jetstream.StreamInfo
	if err := a.request(ctx, "STREAM.INFO."+wire.StreamDLQ, nil, &info); missing(err) {
		return DLQState{}, fmt.Errorf("%w: dead letter stream of %s", ErrNotFound, tenant)
	} else if err != nil {
		return DLQState{}, fmt.Errorf("tenant %s: %w", tenant, err)
	}
	return DLQState{
		Created: info.Created, First: info.State.FirstSeq, Last: info.State.LastSeq, Messages: info.State.Msgs,
		Bytes: info.State.Bytes, MaxBytes: info.Config.MaxBytes, Kept: info.Config.DenyDelete,
	}, nil
}

// RemoveDLQ takes one dead letter away and waits until that is durable. removed is false
// if there was none.
//
// Errors: ErrKept, ErrNoAccount, ErrServer, ErrSyncFailed, ErrClosed, or the connection's.
func RemoveDLQ(ctx context.Context, s *Store, tenant string, seq uint64) (removed bool, err error) {
	return remove(ctx, s, tenant, wire.StreamDLQ, seq)
}

func remove(ctx context.Context, s *Store, tenant, stream string, seq uint64) (bool, error) {
	a, err := s.account(tenant)
	if err != nil {
		return false, err
	}
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	var answer struct{}
	err = a.request(ctx, "STREAM.MSG.DELETE."+stream, map[string]uint64{"seq": seq}, &answer)
	var api *jetstream.APIError
	switch {
	case err == nil:
		return true, s.durable(ctx)
	case errors.As(err, &api) && strings.Contains(api.Description, "not permitted"):
		return false, fmt.Errorf("%w: %s of %s", ErrKept, stream, tenant)
	case errors.As(err, &api): // what is not there has several codes
		m, e := a.message(ctx, stream, messageRequest{Sequence: seq})
		if e == nil && m == nil {
			return false, nil
		}
		return false, errors.Join(fmt.Errorf("tenant %s: %w", tenant, err), e)
	}
	return false, fmt.Errorf("tenant %s: %w", tenant, err)
}

// Republish stores one message in a stream of a tenant and returns its sequence once it
// is on stable storage. duplicate says that the stream has had its Nats-Msg-Id.
//
// Errors: ErrFull, ErrServer, ErrNoAccount, ErrSyncFailed, ErrClosed, or the connection's
// and ctx's, after which it may be stored or not.
func Republish(ctx context.Context, s *Store, tenant, stream string, m *nats.Msg) (seq uint64, duplicate bool, err error) {
	a, err := s.account(tenant)
	if err != nil {
		return 0, false, err
	}
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	ack, err := a.js.PublishMsg(ctx, m)
	var api *jetstream.APIError
	switch {
	case errors.As(err, &api) && api.ErrorCode == errorCodeStoreFailed && strings.Contains(api.Description, "maximum"):
		return 0, false, fmt.Errorf("%w: %s of %s: %w", ErrFull, stream, tenant, err)
	case errors.As(err, &api):
		return 0, false, fmt.Errorf("%w: %s of %s: %w", ErrServer, stream, tenant, err)
	case err != nil:
		return 0, false, fmt.Errorf("store: %s of %s: %w", stream, tenant, err)
	case ack.Stream != stream:
		return 0, false, fmt.Errorf("%w: stream %s of %s took a message for %s", ErrServer, ack.Stream, tenant, stream)
	}
	return ack.Sequence, ack.Duplicate, s.durable(ctx)
}

// Mark is written before a dead letter is redriven and taken away after the letter: what
// was being redriven when a broker ended is known, and no two redrive one letter.
type Mark struct {
	Letter uint64    `json:"letter"`
	Count  int       `json:"count"` // as in wire.HeaderRedriveCount
	To     string    `json:"to"`    // the target: consumer, all or payload
	By     string    `json:"by"`
	Boot   string    `json:"boot"` // of the broker that redrives
	Time   time.Time `json:"time"`
	Before uint64    `json:"before"` // last sequence of StreamRetry before the mark

	seq uint64
}

// PutMark writes a mark; if the letter has one, it is returned in place of m and made is
// false.
//
// Errors: ErrFull, ErrServer, ErrNoAccount, ErrSyncFailed, ErrClosed, or the connection's.
func PutMark(ctx context.Context, s *Store, tenant string, m Mark) (_ *Mark, made bool, err error) {
	for range 3 { // one may go while it is looked at
		body, err := json.Marshal(&m)
		if err != nil {
			return nil, false, fmt.Errorf("store: mark: %w", err)
		}
		msg := nats.NewMsg(wire.PrefixRedrive + strconv.FormatUint(m.Letter, 10))
		msg.Data = body
		msg.Header.Set("Nats-Expected-Last-Subject-Sequence", "0")
		seq, _, err := Republish(ctx, s, tenant, wire.StreamRetry, msg)
		if err == nil {
			m.seq = seq
			return &m, true, nil
		}
		var api *jetstream.APIError
		if !errors.As(err, &api) || api.ErrorCode != wrongLastSequence {
			return nil, false, err
		}
		if have, err := MarkOf(ctx, s, tenant, m.Letter); have != nil || err != nil {
			return have, false, err
		}
	}
	return nil, false, fmt.Errorf("%w: the mark of dead letter %d of %s comes and goes", ErrServer, m.Letter, tenant)
}

// MarkOf returns the mark of a letter; nil if it has none.
//
// Errors: ErrServer, ErrNoAccount, ErrClosed, or the connection's.
func MarkOf(ctx context.Context, s *Store, tenant string, letter uint64) (*Mark, error) {
	a, err := s.account(tenant)
	if err != nil {
		return nil, err
	}
	got, err := a.message(ctx, wire.StreamRetry, messageRequest{Next: wire.PrefixRedrive + strconv.FormatUint(letter, 10), Sequence: 1})
	if got == nil || err != nil {
		return nil, err
	}
	m := &Mark{seq: got.Sequence}
	if err := json.Unmarshal(got.Data, m); err != nil {
		return nil, fmt.Errorf("store: mark of dead letter %d: %w", letter, err)
	}
	return m, nil
}

// DropMark takes a mark away. It is no error if it is gone.
//
// Errors: those of RemoveDLQ.
func DropMark(ctx context.Context, s *Store, tenant string, m *Mark) error {
	_, err := remove(ctx, s, tenant, wire.StreamRetry, m.seq)
	return err
}

// maxQueueScan bounds the look into a retry queue.
const maxQueueScan = 1000

// Queued reports whether the retry queue with that subject has a message of the letter
// after the sequence.
//
// Errors: ErrServer, ErrNoAccount, ErrClosed, or the connection's.
func Queued(ctx context.Context, s *Store, tenant, subject string, letter, after uint64) (bool, error) {
	a, err := s.account(tenant)
	if err != nil {
		return false, err
	}
	want := strconv.FormatUint(letter, 10)
	for range maxQueueScan {
		m, err := a.message(ctx, wire.StreamRetry, messageRequest{Sequence: after + 1, Next: subject})
		if err != nil || m == nil {
			return false, err
		}
		if m.Header.Get(wire.HeaderRedriveLetter) == want {
			return true, nil
		}
		after = m.Sequence
	}
	return false, fmt.Errorf("%w: the retry queue of %s has over %d events", ErrServer, tenant, maxQueueScan)
}

// ConsumerFor returns one consumer; nil if there is none.
//
// Errors: ErrNoAccount, ErrServer, ErrClosed, or the connection's.
func ConsumerFor(ctx context.Context, s *Store, tenant, stream, consumer string) (*Consumer, error) {
	if !plainName(stream) || !plainName(consumer) {
		return nil, nil
	}
	a, err := s.account(tenant)
	if err != nil {
		return nil, err
	}
	var info struct {
		Config struct {
			Durable  string            `json:"durable_name"`
			Filter   string            `json:"filter_subject"`
			Filters  []string          `json:"filter_subjects"`
			AckWait  time.Duration     `json:"ack_wait"`
			Metadata map[string]string `json:"metadata"`
		} `json:"config"`
	}
	err = a.request(ctx, "CONSUMER.INFO."+stream+"."+consumer, nil, &info)
	switch {
	case missing(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("tenant %s: %w", tenant, err)
	}
	c := &Consumer{Stream: stream, Name: consumer, Owner: info.Config.Metadata[wire.MetaOwner], Filters: info.Config.Filters, AckWait: info.Config.AckWait, Durable: info.Config.Durable != ""}
	if info.Config.Filter != "" {
		c.Filters = []string{info.Config.Filter}
	}
	c.Reads = readsOf(info.Config.Metadata)
	return c, nil
}

func readsOf(metadata map[string]string) []string {
	return strings.Fields(metadata[wire.MetaReads])
}

// Settings of the durable of a retry queue. How often it may deliver, the gate says.
const (
	retryAckWait    = 30 * time.Second // or that of the consumer that it is for, if longer
	retryAckPending = 1000
)

// ErrQueueReads: the owner of a retry queue may not read what may be in it already.
var ErrQueueReads = errors.New("store: the retry queue may have events that its owner may not read now")

// EnsureRetry makes the durable that reads the retry queue of c, in the name of the owner
// of c, and waits until that is durable. What it is said to read only grows, and is the
// whole stream where the durable is gone and its queue is not empty: the queue may have
// events of the time when c read more, or was another's. allowed says whether the owner
// may read all that.
//
// Errors: ErrQueueReads; ErrNotFound where the names are too long for one; ErrServer, ErrNoAccount,
// ErrSyncFailed, ErrClosed, or the connection's.
func EnsureRetry(ctx context.Context, s *Store, tenant string, c *Consumer, allowed func(filters []string) bool) error {
	name := wire.RetryConsumer(c.Stream, c.Name)
	if name == "" {
		return fmt.Errorf("%w: the names of stream and consumer are too long for a retry queue", ErrNotFound)
	}
	a, err := s.account(tenant)
	if err != nil {
		return err
	}
	reads := slices.Sorted(slices.Values(c.Filters))
	have, err := ConsumerFor(ctx, s, tenant, wire.StreamRetry, name)
	switch {
	case err != nil:
		return err
	case have != nil:
		reads = joined(reads, have.Reads)
	default:
		left, err := a.message(ctx, wire.StreamRetry, messageRequest{Sequence: 1, Next: wire.RetrySubject(c.Stream, c.Name)})
		if err != nil {
			return err
		}
		if left != nil {
			reads = nil
		}
	}
	if len(reads) == 0 {
		reads = []string{wholeStream}
	}
	if have != nil && have.Owner == c.Owner && slices.Equal(reads, have.Reads) {
		return nil
	}
	if !allowed(Reading(reads)) {
		return ErrQueueReads
	}
	cfg := jetstream.ConsumerConfig{
		Name: name, Durable: name, FilterSubject: wire.RetrySubject(c.Stream, c.Name),
		AckPolicy: jetstream.AckExplicitPolicy, AckWait: max(c.AckWait, retryAckWait), MaxDeliver: -1, MaxAckPending: retryAckPending,
		Metadata: map[string]string{wire.MetaOwner: c.Owner, wire.MetaReads: strings.Join(reads, " ")},
	}
	if _, err = a.js.CreateOrUpdateConsumer(ctx, wire.StreamRetry, cfg); err != nil {
		return fmt.Errorf("%w: durable of the retry queue of %s.%s: %w", ErrServer, c.Stream, c.Name, err)
	}
	return s.durable(ctx)
}

// wholeStream in Consumer.Reads is what no filter is in Consumer.Filters.
const wholeStream = ">"

// Reading makes filters of Consumer.Reads: none for a whole stream.
func Reading(reads []string) []string {
	if slices.Contains(reads, wholeStream) {
		return nil
	}
	return reads
}

// joined is what either reads, sorted.
func joined(filters, before []string) []string {
	if len(filters) == 0 || slices.Contains(before, wholeStream) {
		return nil
	}
	out := slices.Clone(filters)
	for _, r := range before {
		if !wire.SubsetOfAny(r, out) {
			out = append(out, r)
		}
	}
	slices.Sort(out)
	return out
}

// Sequence is where the mark stands in StreamRetry.
func (m *Mark) Sequence() uint64 { return m.seq }

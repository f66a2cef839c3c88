package store

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

const (
	// headerBudget is added to a stream's maxMsgSize, which the policy counts in
	// payload and the server in payload and headers. The gate enforces the exact limit.
	headerBudget = 64 << 10
	// recordWindow is long enough that a batch of the trail that is sent again after a
	// crash is not stored twice.
	recordWindow = 10 * time.Minute
	// bucketWindow is nats.go's.
	bucketWindow = 2 * time.Minute

	prefixKV     = "KV_"
	prefixObject = "OBJ_"
)

// defaultReplicas is how many copies a cluster keeps if the policy does not say.
const defaultReplicas = 3

// ErrReplicas: the policy asks for copies that this broker cannot or must not make.
var ErrReplicas = errors.New("store: replicas")

// CheckReplicas says whether a broker of nodes nodes can keep what t declares.
//
// Errors: ErrReplicas, joined, with the place in the policy.
func CheckReplicas(t *policy.Tenant, nodes int) error {
	var faults []error
	for i := range t.Streams {
		s := &t.Streams[i]
		switch {
		case s.Replicas > nodes:
			faults = append(faults, fmt.Errorf("%w: %s: stream %s wants %d copies, there are %d nodes", ErrReplicas, s.At, s.Name, s.Replicas, nodes))
		case s.Replicas == 1 && nodes > 1 && !s.UnsafeSingleReplica:
			faults = append(faults, fmt.Errorf("%w: %s: stream %s with one copy is lost with its node; leave replicas out, or say unsafeSingleReplica: true", ErrReplicas, s.At, s.Name))
		}
	}
	return errors.Join(faults...)
}

// NodeBytes is how many bytes one node needs for everything that the policy declares
// for a tenant, the dead letter reserve included. The room of the retry queues is the
// broker's own: see OwnNodeBytes.
func NodeBytes(t *policy.Tenant) int64 {
	var sum int64
	for _, cfg := range declared(t, 1) {
		sum = addSat(sum, cfg.MaxBytes)
	}
	return sum - retryStream(t).MaxBytes
}

// AccountBytes is how many bytes the account of a tenant needs in a cluster of nodes
// (1: no cluster), where every copy counts. See Store.Reservation for a tenant that
// has streams already.
func AccountBytes(t *policy.Tenant, nodes int) int64 {
	return allCopies(declared(t, nodes))
}

func allCopies(streams []jetstream.StreamConfig) int64 {
	var sum int64
	for i := range streams {
		sum = addSat(sum, copies(&streams[i]))
	}
	return sum
}

// copies is what all copies of a stream reserve.
func copies(cfg *jetstream.StreamConfig) int64 {
	n := max(cfg.MaxBytes, 0)
	if r := int64(max(cfg.Replicas, 1)); n <= math.MaxInt64/r {
		return n * r
	}
	return math.MaxInt64
}

func addSat(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// declared returns the stream configurations of everything that a tenant declares,
// for a cluster of nodes.
func declared(t *policy.Tenant, nodes int) []jetstream.StreamConfig {
	out := []jetstream.StreamConfig{deadLetterStream(t), retryStream(t)}
	if policy.Schedules(t) {
		out = append(out, scheduleStream())
	}
	for i := range t.Streams {
		out = append(out, eventStream(&t.Streams[i]))
	}
	for i := range t.KV {
		out = append(out, kvStream(&t.KV[i]))
	}
	for i := range t.Objects {
		out = append(out, objectStream(&t.Objects[i]))
	}
	return replicated(out, nodes)
}

// replicated fills in the copies of streams that do not say how many they want.
func replicated(streams []jetstream.StreamConfig, nodes int) []jetstream.StreamConfig {
	for i := range streams {
		if streams[i].Replicas == 0 {
			streams[i].Replicas = min(nodes, defaultReplicas)
		}
	}
	return streams
}

// safe is what all streams share. Every field that can lose or redirect messages
// is off.
func safe(name string, maxBytes policy.ByteSize, subjects ...string) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: name, Subjects: subjects, MaxBytes: int64(maxBytes),
		Storage: jetstream.FileStorage, Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardNew,
		MaxMsgs: -1, MaxMsgsPerSubject: -1, MaxMsgSize: -1, MaxConsumers: -1,
		DenyDelete: true,
	}
}

func eventStream(s *policy.Stream) jetstream.StreamConfig {
	cfg := safe(s.Name, s.MaxBytes, s.Subjects...)
	cfg.MaxAge, cfg.Duplicates = s.MaxAge, s.DuplicateWindow
	cfg.Replicas = s.Replicas
	if s.UnsafeSingleReplica {
		cfg.Replicas = 1
	}
	cfg.DenyPurge, cfg.AllowDirect = true, true
	switch s.Retention {
	case policy.RetentionInterest:
		cfg.Retention = jetstream.InterestPolicy
	case policy.RetentionWorkQueue:
		cfg.Retention = jetstream.WorkQueuePolicy
	case policy.RetentionLimits: // as safe has it
	}
	cfg.AllowMsgTTL, cfg.AllowAtomicPublish, cfg.AllowBatchPublish = s.MessageTTL, s.AtomicBatches, s.FastBatches
	if s.UnsafeRollup || s.UnsafeSchedules {
		cfg.AllowRollup, cfg.DenyPurge = true, false
	}
	if s.UnsafeSchedules { // nats-server 2.15.2 schedules on no stream that discards new
		cfg.AllowMsgSchedules, cfg.Discard = true, jetstream.DiscardOld
	}
	if s.MaxMsgSize > 0 {
		cfg.MaxMsgSize = int32(min(s.MaxMsgSize+headerBudget, math.MaxInt32))
	}
	return cfg
}

func deadLetterStream(t *policy.Tenant) jetstream.StreamConfig {
	cfg := safe(wire.StreamDLQ, t.DeadLetter.MaxBytes, wire.PrefixDLQ+">")
	cfg.MaxAge = t.DeadLetter.MaxAge
	// A failure that shows again is one dead letter as long as that is kept: after a crash
	// or a change of leader, however late.
	cfg.Duplicates = cfg.MaxAge
	cfg.DenyPurge, cfg.DenyDelete = true, false // what was redriven or purged goes, one by one
	return cfg
}

// Room of the retry queues of a tenant: a share of its dead letters.
const (
	retryShare = 4
	retryLeast = 1 << 20
)

// retryStream holds what was redriven to one consumer until that has acknowledged it. It
// has no age: what is in it is nowhere else any more.
func retryStream(t *policy.Tenant) jetstream.StreamConfig {
	cfg := safe(wire.StreamRetry, max(t.DeadLetter.MaxBytes/retryShare, retryLeast), wire.PrefixRetry+">", wire.PrefixRedrive+"*")
	cfg.Retention = jetstream.WorkQueuePolicy
	cfg.Duplicates = RetryWindow
	cfg.DenyPurge, cfg.DenyDelete = true, false
	return cfg
}

// kvStream is what nats.go's CreateKeyValue makes.
func kvStream(b *policy.Bucket) jetstream.StreamConfig {
	cfg := safe(prefixKV+b.Name, b.MaxBytes, wire.PrefixKV+b.Name+".>")
	cfg.MaxMsgsPerSubject = int64(max(b.History, 1))
	cfg.MaxAge = b.TTL
	cfg.Duplicates = shorter(bucketWindow, b.TTL)
	cfg.AllowRollup, cfg.AllowDirect = true, true
	return cfg
}

// objectStream is what nats.go's CreateObjectStore makes, but for DenyDelete,
// which it does not need.
func objectStream(b *policy.Bucket) jetstream.StreamConfig {
	cfg := safe(prefixObject+b.Name, b.MaxBytes, wire.PrefixObject+b.Name+".C.>", wire.PrefixObject+b.Name+".M.>")
	cfg.Duplicates = bucketWindow
	cfg.AllowRollup, cfg.AllowDirect = true, true
	return cfg
}

// shorter returns window, or age if that is set and shorter: the server demands it.
func shorter(window, age time.Duration) time.Duration {
	if age > 0 && age < window {
		return age
	}
	return window
}

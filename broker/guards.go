package broker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/broker/admission"
	"github.com/signetbus/signet/broker/deadletter"
	"github.com/signetbus/signet/broker/diskguard"
	"github.com/signetbus/signet/broker/memguard"
	"github.com/signetbus/signet/broker/ops"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/broker/store"
)

// Limits of the guards.
const (
	// MaxStoreShare is the part of the volume, in percent, that storage.maxBytes may
	// reserve: the rest is for what the store keeps beside the events, and for space to
	// work in.
	MaxStoreShare = 80
	// SoftPayloadBytes is the largest payload that is stored above the soft watermark.
	SoftPayloadBytes = 64 << 10
	// MemoryShare is the default of gate.maxMemory, in percent of the control group's
	// or the machine's memory.
	MemoryShare = 75

	minMemory = 64 << 20
	// tryAgain is what refused publishers are told to wait.
	tryAgain = time.Second
)

// guards is what the broker knows of the room that it has. After startGuards the
// store watch alone looks and writes; everybody may read.
type guards struct {
	disk   *diskguard.Guard // nil where the system cannot tell
	memory *memguard.Guard
	marks  diskguard.Marks

	// room is what admission refuses, and streams what it refuses for one stream.
	room     admission.Room
	streams  streamRooms
	shedding [len(policy.Priorities)]shedding // of the store watch, after startGuards
	// starved: the store has failed for want of space, which nats-server does not
	// recover from by itself.
	starved atomic.Bool
	back    chan struct{} // closed when a starved store has space again
}

func newGuards() *guards { return &guards{back: make(chan struct{})} }

func (g *guards) spaceBack() bool {
	select {
	case <-g.back:
		return true
	default:
		return false
	}
}

// reading is the latest look at the volume; where there is no guard it always has room.
func (g *guards) reading() diskguard.Reading {
	if g.disk == nil {
		return diskguard.Reading{LookAgain: time.Second}
	}
	return g.disk.Reading()
}

// startGuards looks at the volume before anything is written to it, and starts the
// guard of the memory.
func (b startup) startGuards(ctx context.Context, m *material) error {
	if err := os.MkdirAll(b.cfg.State, 0o700); err != nil {
		return err
	}
	g := b.guards
	g.marks = diskguard.Marks{Soft: b.cfg.Storage.SoftWatermark, Hard: b.cfg.Storage.HardWatermark}
	g.disk = diskguard.New(b.cfg.State, g.marks, b.cfg.Storage.testOnlyVolume)
	switch r := g.disk.Look(); {
	case errors.Is(r.Err, diskguard.ErrUnsupported):
		b.log.Warn().Err(r.Err).Msg("no guard of the volume here: have an alarm on its free space")
		g.disk = nil
	case r.Err != nil:
		return r.Err
	default:
		if err := b.fitVolume(m, r); err != nil {
			return err
		}
	}
	g.settle(false, m.policy.HasHigh())
	most := int64(b.cfg.Gate.MaxMemory)
	if most == 0 {
		most = memguard.ReadLimits("/").Least() / 100 * MemoryShare
	}
	g.memory = memguard.New(most, func(over bool, inUse int64) {
		if over {
			b.log.Warn().Int64("bytes", inUse).Int64("gate.maxMemory", most).Msg("memory is short: no new connections")
		} else {
			b.log.Info().Int64("bytes", inUse).Msg("there is memory again: new connections are let in")
		}
	})
	runtime := debug.SetMemoryLimit(-1)
	if runtime == math.MaxInt64 {
		runtime = 0
	}
	b.log.Info().Int64("gate.maxMemory", most).Int64("runtime", runtime).Msg("memory limits in bytes, 0 for none")
	g.memory.Start(ctx)
	b.running("guards", g.memory.Shutdown)
	return nil
}

// fitVolume compares the volume with what the broker is to keep on it, and lowers a
// storage.maxBytes that nobody has chosen.
func (b startup) fitVolume(m *material, r diskguard.Reading) error {
	whole, most := r.Volume.Size, ByteSize(r.Volume.Size/100*MaxStoreShare)
	if r.Level >= diskguard.Hard {
		return fmt.Errorf("%w (%s) is %s used (%s of %s free), storage.hardWatermark is %d %%: free space or enlarge the volume, then start again; nothing that is stored is lost or was touched",
			ErrVolume, b.cfg.State, percent(r.Volume), size(r.Volume.Free), size(whole), b.guards.marks.Hard)
	}
	if b.cfg.Storage.MaxBytes <= most {
		if short := ownShort(m.policy, &b.cfg); ByteSize(short) > most-b.cfg.Storage.MaxBytes {
			return fmt.Errorf("%w (%s) has %s, of which %d %% (%s) may be reserved: %w", ErrVolume, b.cfg.State, size(whole), MaxStoreShare, size(uint64(most)), errOwnShort(m.policy, &b.cfg))
		}
		return nil
	}
	if !b.cfg.Dev && b.cfg.Storage.MaxBytes != DefaultStoreBytes {
		return fmt.Errorf("%w (%s) has %s, of which %d %% (%s) may be reserved, storage.maxBytes is %s: enlarge the volume, or lower storage.maxBytes to %d or less",
			ErrVolume, b.cfg.State, size(whole), MaxStoreShare, size(uint64(most)), size(uint64(b.cfg.Storage.MaxBytes)), most)
	}
	lowered := b.cfg
	lowered.Storage.MaxBytes = most
	_, err := declaredAccounts(m.policy, &lowered)
	if err = errors.Join(err, errOwnShort(m.policy, &lowered)); err != nil {
		return fmt.Errorf("%w (%s) has %s, of which %d %% (%s) may be reserved: enlarge the volume, or lower maxBytes of streams, buckets and deadLetter in the policy: %w",
			ErrVolume, b.cfg.State, size(whole), MaxStoreShare, size(uint64(most)), err)
	}
	b.log.Warn().Int64("storage.maxBytes", int64(most)).Int64("default", int64(b.cfg.Storage.MaxBytes)).Str("state", b.cfg.State).
		Msgf("storage.maxBytes is lowered to %d %% of the volume", MaxStoreShare)
	b.cfg = lowered
	return nil
}

// percent rounds down, so that it never reads as a mark that is not reached.
func percent(v diskguard.Volume) string { return fmt.Sprintf("%d %%", int(100*v.Used())) }

func size(n uint64) string {
	if n < 10<<30 {
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}

// short is what is refused of everybody now.
func (g *guards) short(down bool) *admission.Shortage {
	var s admission.Shortage
	r := g.reading()
	switch {
	case down && g.starved.Load():
		s = admission.Shortage{Rule: "storage", Most: admission.NoPayload, Detail: "the store has failed for want of space: free some, and the broker starts anew by itself"}
	case down:
		s = admission.Shortage{Rule: "storage", Most: admission.NoPayload, Detail: "the store takes nothing now: signet status says why"}
	case r.Level >= diskguard.Hard:
		s = admission.Shortage{Rule: "storage.hardWatermark", Most: admission.NoPayload, Detail: fmt.Sprintf(
			"the volume of the store is %s used, nothing is stored from %d %% on: free space, enlarge the volume, or raise storage.hardWatermark", percent(r.Volume), g.marks.Hard)}
	case r.Level == diskguard.Soft:
		s = admission.Shortage{Rule: "storage.softWatermark", Most: SoftPayloadBytes, Detail: fmt.Sprintf(
			"the volume of the store is %s used, no payload over %d bytes is stored from %d %% on: send less, free space, enlarge the volume, or raise storage.softWatermark", percent(r.Volume), SoftPayloadBytes, g.marks.Soft)}
	default:
		return nil
	}
	s.RetryAfter = tryAgain
	return &s
}

// roomForStreams refuses a policy that adds streams or buckets while the volume is
// above the soft watermark.
func (g *guards) roomForStreams(next, old *policy.Set) error {
	r := g.reading()
	if r.Level < diskguard.Soft {
		return nil
	}
	there := map[string]bool{}
	for _, name := range storedNames(old) {
		there[name] = true
	}
	added := slices.DeleteFunc(storedNames(next), func(name string) bool { return there[name] })
	if len(added) == 0 {
		return nil
	}
	return fmt.Errorf("broker: rule storage.softWatermark: the volume of the store is %s used, nothing new is made from %d %% on (%s): free space, enlarge the volume, or raise storage.softWatermark, then reload",
		percent(r.Volume), g.marks.Soft, strings.Join(added, ", "))
}

// storedNames lists the streams and buckets that a policy declares.
func storedNames(set *policy.Set) []string {
	var out []string
	for _, t := range set.Tenants() {
		for i := range t.Streams {
			out = append(out, "stream "+t.Streams[i].Name+" of "+t.Name)
		}
		for i := range t.KV {
			out = append(out, "kv "+t.KV[i].Name+" of "+t.Name)
		}
		for i := range t.Objects {
			out = append(out, "objects "+t.Objects[i].Name+" of "+t.Name)
		}
	}
	return out
}

// ready says whether clients should be sent elsewhere, if there is an elsewhere.
func (g *guards) ready() error {
	var volume error
	if r := g.reading(); r.Level >= diskguard.Hard {
		volume = fmt.Errorf("the volume of the store is %s used: nothing is stored", percent(r.Volume))
	}
	return errors.Join(volume, g.memory.Over())
}

// volumeHealth is ready that also warns of the soft watermark and of looks that fail.
func (g *guards) volumeHealth() error {
	r := g.reading()
	var level error
	if r.Level > diskguard.OK {
		level = fmt.Errorf("the volume of the store is %s used (%s free), level %s; watermarks: soft %d %%, hard %d %%",
			percent(r.Volume), size(r.Volume.Free), r.Level, g.marks.Soft, g.marks.Hard)
	}
	return errors.Join(level, r.Err)
}

// metrics are those of the guards (docs/operations.md).
func (g *guards) metrics() []ops.Source {
	gauge := func(name, help string, read func() float64) ops.Source {
		return ops.Source{Name: name, Help: help, Kind: ops.Gauge, Read: func(emit func(float64, ...string)) { emit(read()) }}
	}
	out := []ops.Source{
		gauge("signet_memory_in_use_bytes", "Heap found alive by the last garbage collection, and stacks.", func() float64 { return float64(g.memory.InUse()) }),
		gauge("signet_memory_limit_bytes", "Memory in use above which no new connection is let in; 0 for none.", func() float64 { return float64(g.memory.Most()) }),
	}
	if g.disk == nil {
		return out
	}
	return append(out,
		gauge("signet_disk_used_ratio", "Part of the store's volume that is used, 0 to 1, of bytes or inodes.", func() float64 { return g.reading().Volume.Used() }),
		gauge("signet_disk_free_bytes", "Bytes free on the store's volume.", func() float64 { return float64(g.reading().Volume.Free) }),
		gauge("signet_disk_level", "What the store's volume still takes: 0 all, 1 no large events, 2 dead letters only, 3 nothing.", func() float64 { return float64(g.reading().Level) }),
	)
}

// letterStore writes dead letters as long as there is any room at all: they pass the
// hard watermark, and stop before they are what fills the volume.
type letterStore struct{ b *Broker }

var _ deadletter.Store = letterStore{}

// PublishDLQ implements deadletter.Store.
func (l letterStore) PublishDLQ(ctx context.Context, tenant, subject string, header nats.Header, data []byte) (uint64, error) {
	if r := l.b.guards.reading(); r.Level == diskguard.Full {
		return 0, fmt.Errorf("%w: the volume of the store is %s used", store.ErrFull, percent(r.Volume))
	}
	return l.b.store.PublishDLQ(ctx, tenant, subject, header, data)
}

// guardFaults checks the settings of the guards.
func (c *Config) guardFaults() []error {
	var faults []error
	if m := (diskguard.Marks{Soft: c.Storage.SoftWatermark, Hard: c.Storage.HardWatermark}); !m.Valid() {
		faults = append(faults, fmt.Errorf("broker: storage.softWatermark, storage.hardWatermark: want 1 <= soft < hard <= %d (percent), got %d and %d",
			diskguard.Highest, m.Soft, m.Hard))
	}
	if n := c.Gate.MaxMemory; cmp.Or(n, minMemory) < minMemory || n > 1<<50 {
		faults = append(faults, fmt.Errorf("broker: gate.maxMemory: want 0 for the default or %d to %d, got %d", int64(minMemory), int64(1)<<50, n))
	}
	return faults
}

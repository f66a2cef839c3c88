package broker

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/signetbus/signet/broker/admission"
	"github.com/signetbus/signet/broker/diskguard"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/broker/store"
	"github.com/signetbus/signet/internal/wire"
)

// From where on publishes of a priority are refused, in percent: low ones always, normal
// ones only where somebody has priority high, for whom the rest is kept. The volume's marks
// are those of the configuration: low from the soft one on, normal from halfway between
// soft and hard.
const (
	lowStreamMark    = 80 // of maxBytes of the stream
	normalStreamMark = 95
	lowMemoryMark    = 85 // of gate.maxMemory
	normalMemoryMark = 95
	// shedHysteresis is how far, in percent points, the use must fall below a mark before
	// publishes are taken again.
	shedHysteresis = 5
)

// shedding is what a class of publishes is refused for, with its hysteresis. It belongs to
// the goroutine that looks.
type shedding struct{ volume, memory bool }

// passes reports whether used is past the mark, or was and is not hysteresis below it.
func passes(was bool, used, mark, hysteresis float64) bool {
	if was {
		mark -= hysteresis
	}
	return used >= mark
}

// settle says anew what is refused, by priority. high: somebody has priority high. One
// goroutine at a time may call it.
func (g *guards) settle(down, high bool) {
	all := g.short(down)
	for _, p := range policy.Priorities {
		short := all
		if all == nil || all.Most != admission.NoPayload { // else nothing is taken of anybody
			if shed := g.shed(p, high); shed != nil {
				short = shed
			}
		}
		g.room.Set(p, short)
	}
}

// shed is what is refused of a priority beyond what is refused of all.
func (g *guards) shed(p policy.Priority, high bool) *admission.Shortage {
	s := &g.shedding[p.Index()]
	if p == policy.PriorityHigh || p == policy.PriorityNormal && !high {
		*s = shedding{}
		return nil
	}
	r := g.reading()
	used := 100 * r.Volume.Used()
	mark, rule := float64(g.marks.Soft), "storage.softWatermark"
	memory := float64(lowMemoryMark)
	if p == policy.PriorityNormal {
		mark, rule = float64(g.marks.Soft+g.marks.Hard)/2, "storage.hardWatermark"
		memory = normalMemoryMark
	}
	if s.volume = g.disk != nil && passes(s.volume, used, mark, diskguard.Hysteresis); s.volume {
		return shortOf(p, rule, "the volume of the store", percent(r.Volume), mark)
	}
	if g.memory != nil && g.memory.Most() > 0 {
		inUse := 100 * float64(g.memory.InUse()) / float64(g.memory.Most())
		if s.memory = passes(s.memory, inUse, memory, shedHysteresis); s.memory {
			return shortOf(p, "gate.maxMemory", "gate.maxMemory", fmt.Sprintf("%d %%", int(inUse)), memory)
		}
	}
	return nil
}

func shortOf(p policy.Priority, rule, what, used string, mark float64) *admission.Shortage {
	return &admission.Shortage{
		Code: wire.CodePriorityShed, Rule: rule, Most: admission.NoPayload, RetryAfter: tryAgain,
		Detail: fmt.Sprintf("%s is %s used, nothing of priority %s is stored from %g %% on", what, used, p, mark),
	}
}

// streamRooms are what streams near their maxBytes do not take. It is safe for concurrent
// use; a stream that the policy drops keeps a room that takes everything.
type streamRooms struct {
	mu    sync.Mutex
	rooms map[streamName]*streamRoom
}

type streamName struct{ tenant, stream string }

type streamRoom struct {
	admission.Room
	full [len(policy.Priorities)]bool // guarded by streamRooms.mu
}

// of is admission.Config.StreamRoom.
func (r *streamRooms) of(tenant, stream string) *admission.Room {
	r.mu.Lock()
	defer r.mu.Unlock()
	return &r.roomLocked(streamName{tenant, stream}).Room
}

func (r *streamRooms) roomLocked(name streamName) *streamRoom {
	room := r.rooms[name]
	if room == nil {
		if r.rooms == nil {
			r.rooms = make(map[streamName]*streamRoom)
		}
		room = new(streamRoom)
		r.rooms[name] = room
	}
	return room
}

// settle says anew what the streams of a tenant do not take. A stream that is not in list
// keeps what it had: it has no leader now, or its store did not answer.
func (r *streamRooms) settle(t *policy.Tenant, list []store.StreamStatus) {
	high := t.HasHigh()
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range list {
		name := list[i].Name
		declared := t.Stream(name)
		if declared == nil || declared.UnsafeSchedules || list[i].MaxBytes <= 0 { // the server lets the oldest of those go
			continue
		}
		used := 100 * float64(list[i].Bytes) / float64(list[i].MaxBytes)
		room := r.roomLocked(streamName{t.Name, name})
		for p, mark := range map[policy.Priority]float64{policy.PriorityLow: lowStreamMark, policy.PriorityNormal: normalStreamMark} {
			full := &room.full[p.Index()]
			if *full = (p == policy.PriorityLow || high) && passes(*full, used, mark, shedHysteresis); *full {
				room.Set(p, shortOf(p, "stream "+name, "stream "+name, fmt.Sprintf("%d %%", int(used)), mark))
			} else {
				room.Set(p, nil)
			}
		}
	}
}

// open takes everything again for a tenant in which nobody has a priority.
func (r *streamRooms) open(tenant string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, room := range r.rooms {
		if name.tenant == tenant {
			room.full = [len(policy.Priorities)]bool{}
			for _, p := range policy.Priorities {
				room.Set(p, nil)
			}
		}
	}
}

// prioritised reports whether some principal of the tenant has a priority of its own:
// where nobody has, streams are not looked at.
func prioritised(t *policy.Tenant) bool {
	for _, p := range t.Principals() {
		if p.Priority != policy.PriorityNormal {
			return true
		}
	}
	return false
}

// startStreamWatch looks once a second how full the streams are of tenants whose principals
// have priorities. It ends with the broker.
func startStreamWatch(b startup) {
	life, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(storeEvery)
		defer tick.Stop()
		for {
			for _, t := range b.Policy().Tenants() {
				watchStreams(life, b, t)
			}
			select {
			case <-life.Done():
				return
			case <-tick.C:
			}
		}
	}()
	b.running("stream watch", func(context.Context) error {
		stop()
		<-done
		return nil
	})
}

// streamsPatience is how long the store may take to say how full the streams of one tenant
// are; after that they count as they did.
const streamsPatience = 5 * time.Second

func watchStreams(ctx context.Context, b startup, t *policy.Tenant) {
	if !prioritised(t) {
		b.guards.streams.open(t.Name)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, streamsPatience)
	defer cancel()
	list, err := b.store.Streams(ctx, t.Name)
	if err != nil {
		b.log.Debug().Err(err).Str("tenant", t.Name).Msg("how full the streams are is not known now: priorities hold as before")
		return
	}
	b.guards.streams.settle(t, list)
}

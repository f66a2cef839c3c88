package client

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"
)

// roll is the one record of a keyed group in its bucket: who is there, and who has which
// partition. Every instance changes it by itself, with the revision that it read, so there
// is no leader. What is here is pure.
type roll struct {
	Version int    `json:"version"`
	Filter  string `json:"filter"`
	Stream  string `json:"stream"`
	// Members has a count for each instance, which it raises with each sign of life.
	Members map[string]uint64 `json:"members"`
	// Leases has the lease of each: how long it may go on without a sign of life is its own
	// matter, and others may have been started with another one.
	Leases map[string]time.Duration `json:"leases"`
	// Owners has the member that has each partition, empty for none.
	Owners []string `json:"owners"`
}

const rollVersion = 1

func newRoll(filter, stream string, partitions int) *roll {
	return &roll{Version: rollVersion, Filter: filter, Stream: stream, Members: map[string]uint64{}, Leases: map[string]time.Duration{}, Owners: make([]string, partitions)}
}

func parseRoll(text []byte) (*roll, error) {
	r := new(roll)
	if err := json.Unmarshal(text, r); err != nil {
		return nil, err
	}
	if r.Version != rollVersion || len(r.Owners) == 0 || len(r.Owners) > MaxPartitions {
		return nil, fmt.Errorf("version %d with %d partitions", r.Version, len(r.Owners))
	}
	if r.Members == nil {
		r.Members = map[string]uint64{}
	}
	if r.Leases == nil {
		r.Leases = map[string]time.Duration{}
	}
	return r, nil
}

func marshalRoll(r *roll) ([]byte, error) { return json.Marshal(r) }

// shares says whether an instance with this filter and number of partitions is of the group.
func (r *roll) shares(filter, stream string, partitions int) bool {
	return r.Filter == filter && r.Stream == stream && len(r.Owners) == partitions
}

// attend is the sign of life of me: the dead go, the partitions that are free are taken up
// to me's quota unless me is leaving, those that me let go of are free. surplus is how
// many me has over its quota, to be let go of.
func (r *roll) attend(me string, beat uint64, dead []string, left []int, leaving bool) (surplus int) {
	for _, m := range dead {
		r.remove(m)
	}
	for _, p := range left {
		if r.Owners[p] == me {
			r.Owners[p] = ""
		}
	}
	r.Members[me] = beat
	have := r.count(me)
	if leaving {
		return have
	}
	quota := r.quota(me)
	for p, owner := range r.Owners {
		if owner == "" && have < quota {
			r.Owners[p] = me
			have++
		}
	}
	return max(0, have-quota)
}

// remove takes member off the roll, which frees its partitions.
func (r *roll) remove(member string) {
	delete(r.Members, member)
	delete(r.Leases, member)
	for p, owner := range r.Owners {
		if owner == member {
			r.Owners[p] = ""
		}
	}
}

func (r *roll) count(member string) int {
	n := 0
	for _, owner := range r.Owners {
		if owner == member {
			n++
		}
	}
	return n
}

// quota is how many partitions are member's: as many as everybody's, and one more for some
// where they cannot be divided; for those who have the most now, so that nothing moves
// without need.
func (r *roll) quota(member string) int {
	names := slices.Sorted(maps.Keys(r.Members))
	have := map[string]int{}
	for _, owner := range r.Owners {
		have[owner]++
	}
	slices.SortStableFunc(names, func(a, b string) int { return have[b] - have[a] })
	n := len(r.Owners) / len(names)
	if slices.Index(names, member) < len(r.Owners)%len(names) {
		n++
	}
	return n
}

// watch says who on a roll is dead: whoever gave no sign of life for a while by the
// clock of this process alone, since it began to look. Clocks of machines are never compared.
type watch struct {
	after time.Duration // at least: one and a half of the lease of whom it looks at, if that is more
	seen  map[string]sighting
}

type sighting struct {
	beat uint64
	at   time.Time
}

// look takes r in, as it was read just now, and returns the dead of it but me.
func (w *watch) look(r *roll, me string, now time.Time) (dead []string) {
	maps.DeleteFunc(w.seen, func(m string, _ sighting) bool { _, there := r.Members[m]; return !there })
	for m, beat := range r.Members {
		s, known := w.seen[m]
		switch {
		case m == me:
		case !known || s.beat != beat:
			w.seen[m] = sighting{beat, now}
		case now.Sub(s.at) > max(w.after, min(r.Leases[m], MaxLease)*3/2):
			dead = append(dead, m)
		}
	}
	slices.Sort(dead)
	return dead
}

package diskguard

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"
)

// ErrUnsupported: what is free on a volume cannot be asked on this system.
var ErrUnsupported = errors.New("diskguard: free space cannot be asked on this system")

// Stat asks for the volume that holds dir. Errors: ErrUnsupported, or the system's.
type Stat func(dir string) (Volume, error)

// Reading is one look at the volume.
type Reading struct {
	Volume Volume
	Level  Level
	// Err is why the latest look failed; Volume and Level are then those before.
	Err error
	// LookAgain is when the next look is due: 20 ms near a mark, up to 1 s far from
	// one, at most 250 ms while something is refused.
	LookAgain time.Duration
}

// Guard watches the volume of one folder.
type Guard struct {
	dir   string
	marks Marks
	stat  Stat
	last  atomic.Pointer[Reading]
}

// New returns a guard of the volume that holds dir, which must exist. Nil for stat
// means Statfs.
func New(dir string, marks Marks, stat Stat) *Guard {
	if stat == nil {
		stat = Statfs
	}
	g := &Guard{dir: dir, marks: marks, stat: stat}
	g.last.Store(&Reading{LookAgain: latest})
	return g
}

// Look asks for the volume and decides. Only one goroutine may call it.
func (g *Guard) Look() Reading {
	r := *g.last.Load()
	v, err := g.stat(g.dir)
	if r.Err = err; err == nil {
		r.Volume = v
		r.Level = g.marks.Next(r.Level, v.Used())
		r.LookAgain = g.marks.lookAgain(r.Level, v)
	}
	g.last.Store(&r)
	return r
}

// Reading returns the latest look. It does not block and does not allocate; any
// goroutine may call it.
func (g *Guard) Reading() Reading { return *g.last.Load() }

// probeBytes is enough to need blocks of its own on any file system.
const probeBytes = 1 << 20

// Probe writes a file of 1 MiB to dir, syncs it and removes it: quotas and what else
// statfs does not tell show only so. It blocks for as long as the disk takes.
func Probe(dir string) (err error) {
	f, err := os.CreateTemp(dir, "signet-probe-*")
	if err != nil {
		return fmt.Errorf("diskguard: probe: %w", err)
	}
	defer func() {
		err = errors.Join(err, f.Close(), os.Remove(f.Name()))
	}()
	if _, err := f.Write(make([]byte, probeBytes)); err != nil {
		return fmt.Errorf("diskguard: probe: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("diskguard: probe: %w", err)
	}
	return nil
}

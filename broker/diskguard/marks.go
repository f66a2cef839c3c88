package diskguard

import (
	"fmt"
	"time"
)

// Defaults and limits of Marks, in percent of the volume.
const (
	DefaultSoft = 85
	DefaultHard = 92
	// Highest is the largest hard mark. Above it the level is Full: nothing at all is
	// written any more, dead letters included, so that what the server writes for
	// itself (the state of consumers, of streams) still finds room.
	Highest = 98
	// Hysteresis is how far, in percent points, the use must fall below a mark before
	// the level falls: without it a volume at the mark would flap.
	Hysteresis = 2
)

// Level is what may still be written.
type Level int32

// The levels, in rising order. Their numbers are those of the metric.
const (
	OK   Level = iota // everything
	Soft              // no large events, no new streams
	Hard              // no events; dead letters only
	Full              // nothing
)

// String returns ok, soft, hard or full.
func (l Level) String() string {
	if l < OK || l > Full {
		return fmt.Sprintf("level %d", int32(l))
	}
	return [...]string{"ok", "soft", "hard", "full"}[l]
}

// Volume is what is known of a file system. Space that only the superuser may use
// counts neither as free nor to the size, as in df.
type Volume struct {
	Size, Free       uint64 // bytes; Free is at most Size
	Files, FilesFree uint64 // inodes; 0 and 0 where the file system has no fixed number
}

// volume makes a Volume of what statfs counts in blocks: available is what is free
// for others than the superuser.
func volume(block, blocks, free, available, files, filesFree uint64) Volume {
	used := blocks - min(free, blocks)
	return Volume{Size: (used + available) * block, Free: available * block, Files: files, FilesFree: filesFree}
}

// Used is the part that is in use, 0 to 1, of bytes or of inodes, whichever is
// larger: without either of them nothing can be written. A volume without a size is
// full.
func (v Volume) Used() float64 {
	used := 1.0
	if v.Size > 0 {
		used = 1 - float64(min(v.Free, v.Size))/float64(v.Size)
	}
	if v.Files > 0 {
		used = max(used, 1-float64(min(v.FilesFree, v.Files))/float64(v.Files))
	}
	return used
}

// Marks are the watermarks, in percent of the volume that is used.
type Marks struct{ Soft, Hard int }

// Valid reports whether 1 <= Soft < Hard <= Highest.
func (m Marks) Valid() bool { return m.Soft >= 1 && m.Soft < m.Hard && m.Hard <= Highest }

// start returns the use, 0 to 1, from which a level begins.
func (m Marks) start(l Level) float64 {
	return float64([...]int{OK: 0, Soft: m.Soft, Hard: m.Hard, Full: Highest}[l]) / 100
}

// Next returns the level at this use after was. It rises at a mark, and falls when
// the use is Hysteresis points below it.
func (m Marks) Next(was Level, used float64) Level {
	for l := Full; l > OK; l-- {
		from := m.start(l)
		if l <= was {
			from -= Hysteresis / 100.0
		}
		if used >= from {
			return l
		}
	}
	return OK
}

// The bounds of Reading.LookAgain.
const (
	soonest = 20 * time.Millisecond
	latest  = time.Second
	// recovery is the latest while something is refused: publishing should be back
	// soon after the space is.
	recovery = 250 * time.Millisecond
	// fastest is how quickly a volume is taken to fill, in bytes per second.
	fastest = 512 << 20
)

// lookAgain returns when the volume should be looked at next: the sooner the less
// room there is up to the next mark, so that a small volume is not filled between
// two looks.
func (m Marks) lookAgain(l Level, v Volume) time.Duration {
	most := latest
	if l > OK {
		most = recovery
	}
	if l == Full {
		return most
	}
	room := (m.start(l+1) - v.Used()) * float64(v.Size)
	return max(soonest, min(most, time.Duration(room/fastest*float64(time.Second))))
}

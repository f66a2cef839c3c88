package diskguard

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

const gib = 1 << 30

func percent(used float64) Volume {
	return Volume{Size: 100 * gib, Free: uint64((100 - used) * gib)}
}

// TestLevelsHaveHysteresis walks one volume up and down.
func TestLevelsHaveHysteresis(t *testing.T) {
	m, l := Marks{Soft: 85, Hard: 92}, OK
	for i, step := range []struct {
		used float64
		want Level
	}{
		{0, OK},
		{84.9, OK},
		{85.1, Soft},
		{84, Soft}, // within the hysteresis
		{83.1, Soft},
		{82.9, OK},
		{84, OK},
		{92.1, Hard}, // past both at once
		{90.1, Hard},
		{89.9, Soft},
		{91, Soft},
		{99, Full},
		{96.1, Full},
		{95.9, Hard},
		{10, OK}, // down all at once
		{100, Full},
	} {
		if l = m.Next(l, percent(step.used).Used()); l != step.want {
			t.Fatalf("step %d: at %v %% the level is %s, want %s", i, step.used, l, step.want)
		}
	}
}

func TestMarksAreChecked(t *testing.T) {
	for m, want := range map[Marks]bool{
		{DefaultSoft, DefaultHard}: true,
		{1, Highest}:               true,
		{0, 92}:                    false,
		{92, 92}:                   false,
		{93, 92}:                   false,
		{85, Highest + 1}:          false,
	} {
		if got := m.Valid(); got != want {
			t.Errorf("%+v: %v, want %v", m, got, want)
		}
	}
}

func TestUsedCountsInodesToo(t *testing.T) {
	for _, c := range []struct {
		name string
		v    Volume
		want float64
	}{
		{"half", Volume{Size: 100, Free: 50}, 0.5},
		{"inodes are gone", Volume{Size: 100, Free: 50, Files: 10, FilesFree: 0}, 1},
		{"inodes are plenty", Volume{Size: 100, Free: 50, Files: 10, FilesFree: 9}, 0.5},
		{"no size", Volume{}, 1},
		{"nonsense", Volume{Size: 100, Free: 200}, 0},
	} {
		if got := c.v.Used(); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// TestLooksMoreOftenNearAMark: what a fast disk can write between two looks must not
// reach past the next mark unseen, as far as the bounds allow.
func TestLooksMoreOftenNearAMark(t *testing.T) {
	m := Marks{Soft: 85, Hard: 92}
	for _, c := range []struct {
		name  string
		level Level
		v     Volume
		want  time.Duration
	}{
		{"far away", OK, percent(10), time.Second},
		{"a small volume", OK, Volume{Size: 256 << 20, Free: 128 << 20}, 175 * time.Millisecond},
		{"near the mark", OK, Volume{Size: gib, Free: gib * 151 / 1000}, 20 * time.Millisecond},
		{"while something is refused", Hard, percent(92), 250 * time.Millisecond},
		{"full", Full, percent(100), 250 * time.Millisecond},
	} {
		if got := m.lookAgain(c.level, c.v); got.Round(time.Millisecond) != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// TestAFailedLookKeepsTheLevel: not knowing is no reason to open the door again.
func TestAFailedLookKeepsTheLevel(t *testing.T) {
	v, fail := percent(95), error(nil)
	g := New(t.TempDir(), Marks{Soft: 85, Hard: 92}, func(string) (Volume, error) { return v, fail })
	if r := g.Look(); r.Level != Hard || r.Err != nil {
		t.Fatalf("got %+v", r)
	}
	v, fail = Volume{}, errors.New("the device is gone")
	if r := g.Look(); r.Level != Hard || !errors.Is(r.Err, fail) || r.Volume != percent(95) {
		t.Errorf("got %+v", r)
	}
	v, fail = percent(10), nil
	if r := g.Look(); r.Level != OK || r.Err != nil || g.Reading() != r {
		t.Errorf("got %+v", r)
	}
}

// TestStatfs reads the real volume of the test.
func TestStatfs(t *testing.T) {
	dir := t.TempDir()
	v, err := Statfs(dir)
	if errors.Is(err, ErrUnsupported) {
		return // says so, and New's owner warns
	}
	if err != nil || v.Size == 0 || v.Free > v.Size || v.Used() < 0 || v.Used() > 1 {
		t.Fatalf("got %+v, %v", v, err)
	}
	if _, err := Statfs(filepath.Join(dir, "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing folder: %v", err)
	}
}

func TestProbeLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	if err := Probe(dir); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
	if err := Probe(filepath.Join(dir, "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing folder: %v", err)
	}
}

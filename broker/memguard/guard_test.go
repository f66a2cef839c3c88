package memguard

import (
	"math"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// system writes files below a folder that stands for the root of a system.
func system(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestReadLimits(t *testing.T) {
	const meminfo = "MemTotal:       16384000 kB\nMemFree:         1000 kB\n"
	for _, c := range []struct {
		name  string
		files map[string]string
		want  Limits
		least int64
	}{
		{"nothing is known", nil, Limits{}, 0},
		{"no group", map[string]string{"proc/meminfo": meminfo}, Limits{Machine: 16384000 << 10}, 16384000 << 10},
		{"a group without a limit", map[string]string{
			"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "max\n", "proc/meminfo": meminfo,
		}, Limits{Machine: 16384000 << 10}, 16384000 << 10},
		{"the lowest on the way up", map[string]string{
			"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "max\n", "sys/fs/cgroup/a/memory.max": "1073741824\n",
			"proc/meminfo": meminfo,
		}, Limits{Group: 1 << 30, Machine: 16384000 << 10}, 1 << 30},
		{"a container that sees the path of its host", map[string]string{
			"proc/self/cgroup": "0::/kubepods/pod1\n", "sys/fs/cgroup/memory.max": "536870912\n",
		}, Limits{Group: 512 << 20}, 512 << 20},
		{"version 1", map[string]string{
			"proc/self/cgroup": "5:cpu,memory:/x\n4:cpuset:/x\n", "sys/fs/cgroup/memory/x/memory.limit_in_bytes": "2147483648\n",
		}, Limits{Group: 2 << 30}, 2 << 30},
		{"version 1 without a limit", map[string]string{
			"proc/self/cgroup": "5:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
		}, Limits{}, 0},
		{"a group larger than the machine", map[string]string{
			"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "1099511627776\n", "proc/meminfo": meminfo,
		}, Limits{Group: 1 << 40, Machine: 16384000 << 10}, 16384000 << 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := ReadLimits(system(t, c.files))
			if got != c.want || got.Least() != c.least {
				t.Errorf("got %+v, least %d, want %+v, %d", got, got.Least(), c.want, c.least)
			}
		})
	}
}

func TestSetLimitLeavesTheOperatorsAlone(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	set := func(string) string { return "1GiB" }
	unset := func(string) string { return "" }
	if n := SetLimit(Limits{Group: 8 << 30}, set); n != 0 || debug.SetMemoryLimit(-1) != before {
		t.Errorf("GOMEMLIMIT was overridden with %d", n)
	}
	if n := SetLimit(Limits{Machine: 8 << 30}, unset); n != 0 || debug.SetMemoryLimit(-1) != before {
		t.Errorf("a limit of %d without a group", n)
	}
	if n := SetLimit(Limits{Group: 8 << 30}, unset); n != (8<<30)/100*90 || debug.SetMemoryLimit(-1) != n {
		t.Errorf("the limit is %d, SetLimit said %d", debug.SetMemoryLimit(-1), n)
	}
}

// TestOverFollowsTheHeap fills the heap of the test over the mark and frees it.
func TestOverFollowsTheHeap(t *testing.T) {
	runtime.GC()
	low := New(0, nil)
	low.Start(t.Context())
	defer func() { _ = low.Shutdown(t.Context()) }()
	if low.InUse() == 0 || low.Over() != nil {
		t.Fatalf("%d bytes in use, %v", low.InUse(), low.Over())
	}
	said := make(chan bool, 16)
	g := New(low.InUse()+64<<20, func(over bool, _ int64) { said <- over })
	g.Start(t.Context())
	defer func() { _ = g.Shutdown(t.Context()) }()
	if g.Over() != nil {
		t.Fatal(g.Over())
	}
	func() {
		ballast := make([]byte, 128<<20)
		runtime.GC()
		expect(t, said, true)
		if g.Over() == nil {
			t.Error("over, and no error")
		}
		runtime.KeepAlive(ballast)
	}()
	// Nobody collects but the guard itself.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(math.MaxInt64))
	expect(t, said, false)
	if g.Over() != nil {
		t.Error(g.Over())
	}
}

func expect(t *testing.T, said <-chan bool, want bool) {
	t.Helper()
	select {
	case got := <-said:
		if got != want {
			t.Fatalf("over: %v, want %v", got, want)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("over: never %v", want)
	}
}

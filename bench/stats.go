package bench

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"
)

// Stats are what a server says of its own process.
type Stats struct {
	CPU        time.Duration `json:"cpu"`        // user and system since the start; 0 where unknown
	Allocs     uint64        `json:"allocs"`     // heap objects since the start
	AllocBytes uint64        `json:"allocBytes"` // since the start
	Goroutines int           `json:"goroutines"`
	RSS        int64         `json:"rss"`    // bytes; 0 where unknown
	Heap       int64         `json:"heap"`   // bytes of objects
	Stacks     int64         `json:"stacks"` // bytes of goroutine stacks
}

// Sub returns what happened since before.
func (s Stats) Sub(before Stats) Stats {
	return Stats{
		CPU: s.CPU - before.CPU, Allocs: s.Allocs - before.Allocs, AllocBytes: s.AllocBytes - before.AllocBytes,
		Goroutines: s.Goroutines - before.Goroutines, RSS: s.RSS - before.RSS,
		Heap: s.Heap - before.Heap, Stacks: s.Stacks - before.Stacks,
	}
}

// readStats reads the statistics of this process. settle first gives back what is
// free, so that RSS is what is in use.
func readStats(settle bool) Stats {
	if settle {
		runtime.GC() // twice: the first leaves the victims of sync.Pool
		debug.FreeOSMemory()
	}
	samples := []metrics.Sample{
		{Name: "/gc/heap/allocs:objects"},
		{Name: "/gc/heap/allocs:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/stacks:bytes"},
	}
	metrics.Read(samples)
	return Stats{
		CPU: processCPU(), Allocs: samples[0].Value.Uint64(), AllocBytes: samples[1].Value.Uint64(),
		Goroutines: runtime.NumGoroutine(), RSS: residentSize(),
		Heap: int64(samples[2].Value.Uint64()), Stacks: int64(samples[3].Value.Uint64()),
	}
}

// residentSize reads RSS where there is a /proc.
func residentSize() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b))
	if len(f) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(f[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}

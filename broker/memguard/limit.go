package memguard

import (
	"bufio"
	"bytes"
	"math"
	"os"
	"path"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
)

// ShareOfGroup is the part of a control group's limit, in percent, that SetLimit
// gives to the Go runtime: the rest is for what the runtime does not count, and for
// the page cache that the kernel charges to the group.
const ShareOfGroup = 90

// Limits are what the system allows the process, in bytes; 0 where it is not known.
type Limits struct {
	Group   int64 // of the control group, the lowest on the way to the root; Linux
	Machine int64 // physical memory; Linux
}

// Least is the smaller of the two that are known, or 0.
func (l Limits) Least() int64 {
	if l.Group > 0 && (l.Machine == 0 || l.Group < l.Machine) {
		return l.Group
	}
	return l.Machine
}

// ReadLimits reads the limits of this process below root, which is "/" outside of
// tests. What cannot be read is not known: there is no such file on other systems,
// and a broker without a memory guard is better than none.
func ReadLimits(root string) Limits {
	return Limits{Group: groupLimit(root), Machine: machineMemory(root)}
}

// groupLimit is the lowest limit from the process's group up to the root of what is
// mounted. In a container the path may be that of the host, which is not there: the
// walk up then ends at the mounted root, which is the container's own.
func groupLimit(root string) int64 {
	b, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return 0
	}
	least := int64(math.MaxInt64)
	for line := range strings.Lines(string(b)) {
		id, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, group, ok := strings.Cut(rest, ":")
		mount, file := "sys/fs/cgroup", "memory.max"
		switch {
		case !ok:
			continue
		case id == "0" && controllers == "":
		case strings.Contains(","+controllers+",", ",memory,"): // version 1
			mount, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		default:
			continue
		}
		for dir := path.Clean("/" + group); ; dir = path.Dir(dir) {
			if n := readBytes(filepath.Join(root, mount, dir, file)); n > 0 {
				least = min(least, n)
			}
			if dir == "/" {
				break
			}
		}
	}
	// Version 1 says "no limit" by a number near 2^63.
	if least > math.MaxInt64/2 {
		return 0
	}
	return least
}

func readBytes(file string) int64 {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(string(bytes.TrimSpace(b)), 10, 64)
	if err != nil { // "max"
		return 0
	}
	return n
}

func machineMemory(root string) int64 {
	b, err := os.ReadFile(filepath.Join(root, "proc/meminfo"))
	if err != nil {
		return 0
	}
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		if f := strings.Fields(s.Text()); len(f) == 3 && f[0] == "MemTotal:" && f[2] == "kB" {
			if n, err := strconv.ParseInt(f[1], 10, 64); err == nil && n > 0 {
				return n << 10
			}
		}
	}
	return 0
}

// SetLimit gives the Go runtime ShareOfGroup percent of the group's limit as its soft
// memory limit, unless the operator has set GOMEMLIMIT or there is no such limit. It
// returns the limit that it set, or 0. The limit is of the whole process.
func SetLimit(l Limits, getenv func(string) string) int64 {
	if getenv("GOMEMLIMIT") != "" || l.Group == 0 {
		return 0
	}
	n := l.Group / 100 * ShareOfGroup
	debug.SetMemoryLimit(n)
	return n
}

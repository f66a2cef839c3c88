package embed

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// listeners returns the local addresses (hex, as the kernel prints them) of all
// listening TCP and all UDP sockets of this process.
func listeners(t *testing.T) map[string]bool {
	t.Helper()
	own := map[string]bool{}
	fds, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err == nil {
			own[strings.TrimSuffix(strings.TrimPrefix(target, "socket:["), "]")] = true
		}
	}
	found := map[string]bool{}
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6"} {
		f, err := os.Open("/proc/self/net/" + table)
		if err != nil {
			continue // no IPv6 here
		}
		sc := bufio.NewScanner(f)
		for sc.Scan() {
			field := strings.Fields(sc.Text())
			if len(field) > 9 && own[field[9]] && (field[3] == "0A" || strings.HasPrefix(table, "udp")) {
				found[table+" "+field[1]] = true
			}
		}
		f.Close()
	}
	return found
}

func TestOnlyOneListener(t *testing.T) {
	before := listeners(t)
	s := start(t, nil)
	all(s, "shop").connect(t)
	var added []string
	for l := range listeners(t) {
		if !before[l] {
			added = append(added, l)
		}
	}
	var port int
	if _, err := fmt.Sscanf(s.Addr().String(), "127.0.0.1:%d", &port); err != nil {
		t.Fatalf("address %s: %v", s.Addr(), err)
	}
	if want := fmt.Sprintf("tcp 0100007F:%04X", port); len(added) != 1 || added[0] != want {
		t.Errorf("listeners %q, want only %q", added, want)
	}
}

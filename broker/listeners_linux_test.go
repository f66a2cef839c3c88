package broker_test

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
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

// TestRow38PortsAndMonitoring: a whole broker listens on the client port, on the
// operations port and, on loopback only, on the port of the embedded server; and
// none of them tells what the monitoring of nats-server or of Go would.
func TestRow38PortsAndMonitoring(t *testing.T) {
	before := listeners(t)
	b := newBroker(t, func(o *brokertest.Options) {
		o.Change = func(c *broker.Config) {
			quickDrain(c)
			c.Listen, c.Ops.Listen = "0.0.0.0:0", "0.0.0.0:0"
		}
	})
	want := map[string]bool{}
	for addr, ip := range map[string]string{b.Addr().String(): "00000000", b.OpsAddr().String(): "00000000", b.Upstream(): "0100007F"} {
		_, text, err := net.SplitHostPort(addr)
		check(t, err)
		want[fmt.Sprintf("tcp %s:%04X", ip, must(strconv.Atoi(text))(t))] = true
	}
	added := map[string]bool{}
	for l := range listeners(t) {
		if !before[l] {
			// Go may serve 0.0.0.0 with one socket of both families.
			added[strings.Replace(l, "tcp6 00000000000000000000000000000000:", "tcp 00000000:", 1)] = true
		}
	}
	if !maps.Equal(added, want) {
		t.Errorf("listeners %v, want %v", added, want)
	}
	web := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	for _, path := range []string{
		"/", "/debug/", "/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/cmdline", "/debug/vars", "/varz", "/connz?auth=1", "/subsz", "/subscriptionsz", "/routez",
		"/gatewayz", "/leafz", "/accountz", "/accstatz", "/jsz", "/healthz", "/stacksz", "/ipqueuesz", "/raftz", "/expvarz", "/metrics/../varz", "//debug/vars",
	} {
		resp, err := web.Get("http://" + localhost(t, b.OpsAddr()) + path)
		check(t, err)
		body := must(io.ReadAll(resp.Body))(t)
		check(t, resp.Body.Close())
		if resp.StatusCode != http.StatusNotFound || len(body) > 64 {
			t.Errorf("%s: %d, %.80q", path, resp.StatusCode, body)
		}
		for _, addr := range []string{localhost(t, b.Addr()), b.Upstream()} {
			if resp, err := web.Get("http://" + addr + path); err == nil {
				_ = resp.Body.Close()
				t.Errorf("%s answers %s with %s", addr, path, resp.Status)
			}
		}
	}
}

// localhost is where a listener on all addresses is reached from here.
func localhost(t *testing.T, addr net.Addr) string {
	t.Helper()
	_, port, err := net.SplitHostPort(addr.String())
	check(t, err)
	return net.JoinHostPort("127.0.0.1", port)
}

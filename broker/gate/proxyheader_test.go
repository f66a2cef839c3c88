package gate

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/internal/wire"
)

// proxyHeader is what a proxy sends on behalf of client.
func proxyHeader(client netip.AddrPort) []byte {
	family, addr := byte(proxyTCP6), client.Addr().AsSlice()
	if client.Addr().Is4() {
		family = proxyTCP4
	}
	body := append(append([]byte{}, addr...), make([]byte, len(addr))...)
	body = binary.BigEndian.AppendUint16(body, client.Port())
	body = append(body, 0, 1, 0x04, 0, 3, 'a', 'b', 'c') // a port, and something of the proxy's own
	out := append([]byte(proxySignature), proxyOn, family)
	out = binary.BigEndian.AppendUint16(out, uint16(len(body)))
	return append(out, body...)
}

func behindProxy(c *Config, _ *Deps) {
	c.Proxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
}

// throughProxy dials with a header first.
type throughProxy struct{ header []byte }

func (p throughProxy) Dial(network, address string) (net.Conn, error) {
	nc, err := net.Dial(network, address)
	if err == nil {
		_, err = nc.Write(p.header)
	}
	return nc, err
}

// TestProxyNamesTheClient: behind a listed proxy the client has its own address, in the
// record, in what it is told, and for the limits.
func TestProxyNamesTheClient(t *testing.T) {
	plain := newWorld(t, behindProxy, func(c *Config, _ *Deps) { c.Limits.FailedLogins = 3 })
	for _, client := range []string{"203.0.113.9:4711", "[2001:db8::7]:4711"} {
		at := netip.MustParseAddrPort(client)
		nc := plain.connect("writer", nats.SetCustomDialer(throughProxy{proxyHeader(at)}))
		check(t, nc.Flush())
		if ip, err := nc.GetClientIP(); err != nil || ip.String() != at.Addr().String() {
			t.Errorf("it is told that it is %v, %v", ip, err)
		}
	}
	// Failures of one client do not shut the proxy.
	bad := netip.MustParseAddrPort("203.0.113.66:1")
	for range 10 {
		nc, err := throughProxy{proxyHeader(bad)}.Dial("tcp", plain.gate.Addr().String())
		check(t, err)
		r := &raw{t: t, nc: nc}
		_, _ = nc.Write([]byte("CONNECT {}\r\nPING\r\n"))
		for r.line() != "EOF" {
		}
		nc.Close()
	}
	if n := plain.gate.Stats().TurnedAway["gate.failedLogins"]; n == 0 {
		t.Error("the client behind the proxy is not limited")
	}
	check(t, plain.connect("writer", nats.SetCustomDialer(throughProxy{proxyHeader(netip.MustParseAddrPort("203.0.113.10:1"))})).Flush())
	// A health check of the proxy is its own connection.
	local := append([]byte(proxySignature), proxyLocal, 0, 0, 0)
	check(t, plain.connect("writer", nats.SetCustomDialer(throughProxy{local})).Flush())
}

// TestProxyHeaderIsDemanded: a listed proxy must say whose connection it is, and who is
// not listed may not.
func TestProxyHeaderIsDemanded(t *testing.T) {
	w := newWorld(t, behindProxy)
	good := proxyHeader(netip.MustParseAddrPort("203.0.113.9:1"))
	cut := func(i int, b byte) []byte {
		out := append([]byte{}, good...)
		out[i] = b
		return out
	}
	for name, header := range map[string][]byte{
		"none":                 []byte("CONNECT {\"verbose\":false}\r\nPING\r\n"),
		"version 1":            []byte("PROXY TCP4 203.0.113.9 192.0.2.1 1 2\r\n"),
		"another version":      cut(12, 0x11),
		"UDP":                  cut(13, 0x12),
		"unknown family":       cut(13, 0),
		"a length that is off": append(cut(15, 4), make([]byte, 64)...),
		"huge":                 append(cut(14, 0xff), make([]byte, 0xffff)...),
		"nobody":               proxyHeader(netip.MustParseAddrPort("0.0.0.0:1")),
	} {
		nc, err := throughProxy{header}.Dial("tcp", w.gate.Addr().String())
		check(t, err)
		r := &raw{t: t, nc: nc}
		if l := r.line(); l != "-ERR 'Authorization Violation'" && l != "EOF" {
			t.Errorf("%s: got %q", name, l)
		}
		nc.Close()
	}
	w.until("it is on record", func() bool {
		w.sink.mu.Lock()
		defer w.sink.mu.Unlock()
		return strings.Contains(strings.Join(w.sink.refused, "\n"), wire.CodeProtocolViolation.String()+" connect")
	})
	open := newWorld(t)
	nc, err := throughProxy{good}.Dial("tcp", open.gate.Addr().String())
	check(t, err)
	defer nc.Close()
	r := &raw{t: t, nc: nc}
	for l := r.line(); l != "EOF"; l = r.line() {
		if info, ok := strings.CutPrefix(l, "INFO "); ok && strings.Contains(info, "203.0.113.9") {
			t.Error("anybody may say that he is a proxy")
		}
	}
}

func FuzzProxyClient(f *testing.F) {
	h := proxyHeader(netip.MustParseAddrPort("203.0.113.9:4711"))
	f.Add(h[12], h[13], h[16:])
	f.Add(byte(proxyOn), byte(proxyTCP6), make([]byte, 36))
	f.Fuzz(func(t *testing.T, command, family byte, body []byte) {
		a, err := proxyClient(command, family, body)
		if err == nil && a.IsValid() && (a.Addr().IsUnspecified() || a.Addr().Is4In6() || command != proxyOn) {
			t.Errorf("%v out of %x %x %x", a, command, family, body)
		}
	})
}

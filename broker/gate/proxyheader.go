package gate

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/signetbus/signet/internal/wire"
)

// The PROXY protocol, version 2 (haproxy's proxy-protocol.txt, section 2.2).
const (
	proxySignature = "\r\n\r\n\x00\r\nQUIT\n"
	proxyHead      = len(proxySignature) + 4
	maxProxyBody   = 1024 // addresses and whatever the proxy adds; more is refused

	proxyLocal = 0x20 // version 2, of the proxy itself: a health check
	proxyOn    = 0x21 // version 2, on behalf of a client
	proxyTCP4  = 0x11
	proxyTCP6  = 0x21
)

var errProxyHeader = errors.New("not a header of the PROXY protocol version 2 with a TCP address")

// proxied reports whether a connection comes from a listed proxy, which says itself
// whose it is. Nobody else is listened to.
func (g *Gate) proxied(a net.Addr) bool {
	t, ok := a.(*net.TCPAddr)
	if !ok || len(g.cfg.Proxies) == 0 {
		return false
	}
	addr := t.AddrPort().Addr().Unmap().WithZone("")
	return slices.ContainsFunc(g.cfg.Proxies, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// unproxy reads the header that a listed proxy must send first, and makes the client's
// address that of the connection. It reads not one byte more. The door, which has let
// the proxy in, is asked about the client.
func (h *handshake) unproxy() error {
	c, raw := h.c, h.c.life.raw
	if !c.gate.proxied(raw.RemoteAddr()) {
		return nil
	}
	if err := raw.SetReadDeadline(time.Now().Add(h.limit)); err != nil {
		return err
	}
	var head [proxyHead]byte
	if _, err := io.ReadFull(raw, head[:]); err != nil {
		return err
	}
	size := int(binary.BigEndian.Uint16(head[proxyHead-2:]))
	if string(head[:len(proxySignature)]) != proxySignature || size > maxProxyBody {
		return badProxyHeader()
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(raw, body); err != nil {
		return err
	}
	client, err := proxyClient(head[len(proxySignature)], head[len(proxySignature)+1], body)
	switch {
	case err != nil:
		return badProxyHeader()
	case !client.IsValid():
		return nil // the proxy itself
	}
	addr := net.TCPAddrFromAddrPort(client)
	c.addr, c.greeting.ip = addressKey(addr), client.Addr().String()
	c.access.creds.RemoteAddr, c.session.audit.remote = client.String(), client.String()
	if why, ok := c.gate.admits(addr); !ok {
		c.gate.counters.turnedAway[why].Add(1)
		return io.EOF // no answer: it would cost what the limit saves
	}
	return nil
}

func badProxyHeader() error {
	return &fatal{err: errAuthorization, refusal: wire.Refuse(wire.CodeProtocolViolation, "gate.trustedProxies", errProxyHeader.Error())}
}

// proxyClient returns the client that a header names; the zero value for the proxy
// itself.
func proxyClient(command, family byte, body []byte) (netip.AddrPort, error) {
	var none netip.AddrPort
	size := 0
	switch {
	case command == proxyLocal:
		return none, nil
	case command == proxyOn && family == proxyTCP4:
		size = 4
	case command == proxyOn && family == proxyTCP6:
		size = 16
	default:
		return none, errProxyHeader
	}
	if len(body) < 2*size+4 {
		return none, errProxyHeader
	}
	addr, _ := netip.AddrFromSlice(body[:size])
	if addr = addr.Unmap(); addr.IsUnspecified() || addr.IsMulticast() {
		return none, errProxyHeader
	}
	return netip.AddrPortFrom(addr, binary.BigEndian.Uint16(body[2*size:])), nil
}

// admits asks the door about an address.
func (g *Gate) admits(a net.Addr) (why away, ok bool) {
	now := time.Now()
	switch {
	case !g.door.admit(a, now):
		return awayRate, false
	case g.door.tries.shut(addressKey(a), now):
		return awayFailed, false
	}
	return 0, true
}

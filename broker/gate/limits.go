package gate

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// doorman limits new connections per address: a token bucket each. Addresses that
// have been quiet long enough to have a full bucket are forgotten. Safe for
// concurrent use.
type doorman struct {
	mu    sync.Mutex
	rate  float64 // per second; below 0 admits everybody
	burst float64
	table map[netip.Addr]visits
	swept time.Time
	tries *attempts // has a lock of its own
}

type visits struct {
	tokens float64
	at     time.Time
}

// maxAddresses bounds the table. A flood from more addresses than this is for the
// network to stop; new ones are then admitted without a bucket, under the limit of
// connections.
const maxAddresses = 1 << 16

func newDoorman(rate float64, burst int) *doorman {
	return &doorman{rate: rate, burst: max(float64(burst), 1), table: make(map[netip.Addr]visits)}
}

// admit takes one token of the address.
func (d *doorman) admit(a net.Addr, now time.Time) bool {
	if d.rate < 0 {
		return true
	}
	key := addressKey(a)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sweepLocked(now)
	v, known := d.table[key]
	if !known {
		if len(d.table) >= maxAddresses {
			return true
		}
		v = visits{tokens: d.burst, at: now}
	}
	v.tokens = min(d.burst, v.tokens+now.Sub(v.at).Seconds()*d.rate)
	v.at = now
	ok := v.tokens >= 1
	if ok {
		v.tokens--
	}
	d.table[key] = v
	return ok
}

func (d *doorman) sweepLocked(now time.Time) {
	if now.Sub(d.swept) < 10*time.Second {
		return
	}
	d.swept = now
	for k, v := range d.table {
		if v.tokens+now.Sub(v.at).Seconds()*d.rate >= d.burst {
			delete(d.table, k)
		}
	}
}

// addressKey is the IPv4 address or the IPv6 /64: who has one address of a /64 has
// them all.
func addressKey(a net.Addr) netip.Addr {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	addr := t.AddrPort().Addr().Unmap().WithZone("")
	if addr.Is6() {
		if p, err := addr.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return addr
}

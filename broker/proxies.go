package broker

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// maxProxies bounds gate.trustedProxies: each connection is compared with all.
const maxProxies = 64

// proxies reads TrustedProxies.
func (c *GateConfig) proxies() ([]netip.Prefix, error) {
	if len(c.TrustedProxies) > maxProxies {
		return nil, fmt.Errorf("at most %d, got %d", maxProxies, len(c.TrustedProxies))
	}
	var out []netip.Prefix
	var faults []error
	for _, s := range c.TrustedProxies {
		p, err := netip.ParsePrefix(s)
		if !strings.Contains(s, "/") {
			var a netip.Addr
			if a, err = netip.ParseAddr(s); err == nil {
				p = netip.PrefixFrom(a, a.BitLen())
			}
		}
		switch {
		case err != nil || strings.Contains(s, "%"):
			faults = append(faults, fmt.Errorf("%q is neither an address nor a network such as 10.0.0.0/8", s))
		case p.Masked() != p:
			faults = append(faults, fmt.Errorf("%q has bits behind its length: %s is meant?", s, p.Masked()))
		case p.Bits() == 0:
			faults = append(faults, fmt.Errorf("%q is everybody: whoever connects could name any address", s))
		}
		out = append(out, p)
	}
	return out, errors.Join(faults...)
}

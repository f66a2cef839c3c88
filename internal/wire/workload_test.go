package wire

import (
	"crypto/x509"
	"net/url"
	"strings"
	"testing"
)

func TestSPIFFE(t *testing.T) {
	for id, want := range map[string][2]string{
		"spiffe://shop/checkout":                   {"shop", "/checkout"},
		"spiffe://shop.example.org/ns/a/sa/b.c_d-": {"shop.example.org", "/ns/a/sa/b.c_d-"},
		"spiffe://a_b/Upper/...":                   {"a_b", "/Upper/..."},
	} {
		if domain, path, err := ParseSPIFFE(id); err != nil || domain != want[0] || path != want[1] {
			t.Errorf("%s: got %q, %q, %v", id, domain, path, err)
		}
	}
	for _, id := range []string{
		"", "spiffe://", "spiffe://shop", "spiffe://shop/", "spiffe:///a", "spiffe:/shop/a", "SPIFFE://shop/a", "Spiffe://shop/a",
		"spiffe://Shop/a", "spiffe://shop:443/a", "spiffe://u@shop/a", "spiffe://shop/a?q", "spiffe://shop/a#f", "spiffe://shop//a",
		"spiffe://shop/a/", "spiffe://shop/./a", "spiffe://shop/../a", "spiffe://shop/a%20b", "spiffe://shop/a b", "spiffe://shop/\u00e9",
		"spiffe://sh\u00f6p/a", "spiffe://shop/a\x00", "https://shop/a", " spiffe://shop/a", "spiffe://shop/a\n", "spiffe://%73hop/a",
		"spiffe://shop/" + strings.Repeat("a", MaxSPIFFEBytes), "spiffe://" + strings.Repeat("a", 256) + "/a",
	} {
		if domain, path, err := ParseSPIFFE(id); err == nil {
			t.Errorf("%q: accepted as %q, %q", id, domain, path)
		}
	}
}

func TestDNSName(t *testing.T) {
	for _, s := range []string{"a.b", "checkout.shop.svc", "xn--bcher-kva.example", "0a.b-c.d", "1.2.3.4x"} {
		if err := CheckDNSName(s); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, s := range []string{
		"", "a", "localhost", ".", "a.", ".a", "a..b", "A.b", "a.B", "*.a.b", "a.*", "a_b.c", "-a.b", "a-.b", "a b.c", "a.b\x00", "a.b ",
		"10.0.0.1", "1.2", "[::1]", "b\u00fccher.example", strings.Repeat("a", 64) + ".b", strings.Repeat("a.", 127) + "a",
	} {
		if CheckDNSName(s) == nil {
			t.Errorf("%q: accepted", s)
		}
	}
}

// What is accepted has one spelling: it survives the URL type of certificates unchanged,
// and a certificate of a name is good for that name and no other.
func FuzzWorkloadNames(f *testing.F) {
	for _, s := range []string{"spiffe://shop/checkout", "spiffe://shop/../a", "spiffe://a/b%2fc", "checkout.shop.svc", "1.2.3.4", "a.B"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if domain, path, err := ParseSPIFFE(s); err == nil {
			u, err := url.Parse(s)
			if err != nil || u.String() != s || u.Host != domain || u.Path != path || u.RawPath != "" {
				t.Errorf("%q is %q, %q for us and %+v for url.Parse (%v)", s, domain, path, u, err)
			}
		}
		if CheckDNSName(s) == nil {
			if err := (&x509.Certificate{DNSNames: []string{s}}).VerifyHostname(s); err != nil {
				t.Error(err)
			}
		}
	})
}

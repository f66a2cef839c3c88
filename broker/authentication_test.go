package broker_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/signetbus/signet/broker"
)

// withAuthentication is the configuration of a broker with text under authentication.
func withAuthentication(t *testing.T, text string) (broker.Config, error) {
	t.Helper()
	st := must(broker.Setup{Dir: t.TempDir(), Name: "test", Listen: "127.0.0.1:4222", Policy: "tenant: shop\n"}.Run())(t)
	file := filepath.Join(st.Dir, "with.yaml")
	check(t, os.WriteFile(file, append(must(os.ReadFile(st.Config))(t), []byte("\n"+text)...), 0o600))
	return broker.LoadConfig(file, nil)
}

// TestAuthenticationExamples: what the specification shows is a configuration.
func TestAuthenticationExamples(t *testing.T) {
	parts := strings.Split(string(must(os.ReadFile("../docs/spec/authentication.md"))(t)), "```yaml\n")[1:]
	if len(parts) < 3 {
		t.Fatalf("%d examples", len(parts))
	}
	for _, p := range parts {
		text, _, _ := strings.Cut(p, "```")
		cfg, err := withAuthentication(t, text)
		if err != nil {
			t.Errorf("%s\n%v", text, err)
		}
		a := cfg.Authentication
		if len(a.Certificates)+len(a.Issuers) == 0 {
			t.Errorf("nothing was read of\n%s", text)
		}
		for _, c := range a.Certificates {
			if !filepath.IsAbs(c.CA) {
				t.Errorf("%s is relative to nothing", c.CA)
			}
		}
	}
}

func TestAuthenticationFaults(t *testing.T) {
	const tenants = "tenants: [{name: shop, spiffe: ['spiffe://a/*']}]"
	const subjects = "tenants: [{name: shop, subjects: ['*']}]"
	for text, want := range map[string]string{
		"methods: [password]":                                            "want nkey, certificate or token",
		"methods: [nkey, nkey]":                                          "repeated",
		"methods: [certificate]":                                         "needs authorities",
		"methods: [token]":                                               "needs issuers",
		"certificates: [{" + tenants + "}]":                              "ca is required",
		"certificates: [{ca: x}]":                                        "tenants is required",
		"certificates: [{ca: x, tenants: [{name: shop}]}]":               "spiffe or dns is required",
		"certificates: [{ca: x, tenants: [{spiffe: ['spiffe://a/*']}]}]": "name is required",
		"certificates: [{ca: x, tenants: [{name: shop, spiffe: ['spiffe://*']}]}]":                                                    "is not a SPIFFE ID",
		"certificates: [{ca: x, tenants: [{name: shop, dns: ['*']}]}]":                                                                "is not a DNS name",
		"issuers: [{audiences: [a], " + subjects + "}]":                                                                               "is not an issuer",
		"issuers: [{issuer: 'http://a', audiences: [a], " + subjects + "}]":                                                           "is not an issuer",
		"issuers: [{issuer: 'https://a', " + subjects + "}]":                                                                          "audiences is required",
		"issuers: [{issuer: 'https://a', audiences: [a]}]":                                                                            "tenants is required",
		"issuers: [{issuer: 'https://a', audiences: [a], tenants: [{name: shop}]}]":                                                   "name and subjects are required",
		"issuers: [{issuer: 'https://a', audiences: [a], tenants: [{name: shop, subjects: ['a*b']}]}]":                                "is not a subject",
		"issuers: [{issuer: 'https://a', audiences: [a], algorithms: [none], " + subjects + "}]":                                      "algorithms",
		"issuers: [{issuer: 'https://a', audiences: [a], algorithms: [HS256], " + subjects + "}]":                                     "algorithms",
		"issuers: [{issuer: 'https://a', audiences: [a], skew: 5m, " + subjects + "}]":                                                "skew",
		"issuers: [{issuer: 'https://a', audiences: [a], maxLifetime: 1000h, " + subjects + "}]":                                      "maxLifetime",
		"issuers: [{issuer: 'https://a', audiences: [a], keys: {url: 'http://a'}, " + subjects + "}]":                                 "keys.url",
		"issuers: [{issuer: 'https://a', audiences: [a], keys: {file: x, url: 'https://a'}, " + subjects + "}]":                       "exclude each other",
		"issuers: [{issuer: 'https://a', audiences: [a], keys: {interval: 1s}, " + subjects + "}]":                                    "keys.interval",
		"issuers: [{issuer: 'https://a', audiences: [a], " + subjects + "}, {issuer: 'https://a', audiences: [a], " + subjects + "}]": "repeated",
		"enrolment: {lifetime: 1h}":         "lifetime without ca",
		"enrolment: {ca: ca, lifetime: 1s}": "enrolment.lifetime",
		"passwords: [x]":                    "unknown key",
	} {
		if _, err := withAuthentication(t, "authentication: {"+text+"}\n"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}

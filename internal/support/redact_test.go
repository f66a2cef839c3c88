package support

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"
)

// newSeed makes a seed that nothing else has.
func newSeed(tb testing.TB, create func() (nkeys.KeyPair, error)) string {
	tb.Helper()
	pair, err := create()
	if err != nil {
		tb.Fatal(err)
	}
	seed, err := pair.Seed()
	if err != nil {
		tb.Fatal(err)
	}
	return string(seed)
}

func publicOf(tb testing.TB, seed string) string {
	tb.Helper()
	pair, err := nkeys.FromSeed([]byte(seed))
	if err != nil {
		tb.Fatal(err)
	}
	public, err := pair.PublicKey()
	if err != nil {
		tb.Fatal(err)
	}
	return public
}

// squeeze leaves letters and digits: what somebody who looks for a seed would try.
func squeeze(b []byte) string {
	var out []byte
	for _, c := range b {
		if c >= 'A' && c <= 'Z' || c >= '2' && c <= '7' {
			out = append(out, c)
		}
	}
	return string(out)
}

func TestSeedsOfEveryKind(t *testing.T) {
	for name, create := range map[string]func() (nkeys.KeyPair, error){
		"user": nkeys.CreateUser, "account": nkeys.CreateAccount, "operator": nkeys.CreateOperator,
		"server": nkeys.CreateServer, "cluster": nkeys.CreateCluster, "curve": nkeys.CreateCurveKeys,
	} {
		seed := newSeed(t, create)
		split := func(by string) string { return seed[:20] + by + seed[20:40] + by + seed[40:] }
		for form, text := range map[string]string{
			"bare": seed, "in a word": "x" + seed + "y", "key": "k: " + seed, "quoted": `"` + seed + `"`, "path": "/etc/" + seed + ".nk",
			"blank": split(" "), "line": split("\n"), "indented": split("\n    "), "quotes": split(`" + "`), "comment": split("\n# "),
			"escaped line": split(`\n`), "escaped unicode": split(`\u0020`), "every character": strings.Join(strings.Split(seed, ""), " "),
			"small": strings.ToLower(seed), "zero width": split("\u200b"),
		} {
			got := Redact([]byte("before " + text + " after"))
			if strings.Contains(squeeze(bytes.ToUpper(got)), seed[4:24]) || strings.Contains(squeeze(bytes.ToUpper(got)), seed[38:]) {
				t.Errorf("%s, %s: %q", name, form, got)
			}
			if !bytes.HasPrefix(got, []byte("before ")) || !bytes.HasSuffix(got, []byte(" after")) {
				t.Errorf("%s, %s: more than the seed went: %q", name, form, got)
			}
		}
		if got := Redact([]byte("cut: " + seed[:30])); bytes.Contains(got, []byte(seed[4:24])) {
			t.Errorf("%s: the beginning of a seed stayed: %q", name, got)
		}
	}
}

func TestSecretsByForm(t *testing.T) {
	const secret = "hunter2Hunter2"
	for _, tt := range []struct{ name, in string }{
		{"pem", "a\n-----BEGIN PRIVATE KEY-----\n" + secret + "\n-----END PRIVATE KEY-----\nz"},
		{"pem of another kind", "-----BEGIN OPENSSH PRIVATE KEY-----\n" + secret + "\n-----END OPENSSH PRIVATE KEY-----"},
		{"pem in JSON", `"-----BEGIN EC PRIVATE KEY-----\n` + secret + `\n-----END EC PRIVATE KEY-----\n"`},
		{"pem without an end", "-----BEGIN RSA PRIVATE KEY-----\n" + secret + "\n"},
		{"pem without a beginning", secret + "\n" + secret + "\n-----END RSA PRIVATE KEY-----\n"},
		{"bare key", "MC4CAQAwBQYDK2VwBCIEI" + secret + secret},
		{"node token", "token signet-node-v1.prod.NABC." + secret},
		{"node token over lines", "signet-node-v1.prod.\n  " + strings.Repeat("N", 30) + "." + secret},
		{"jwt", "eyJhbGciOiJFZERTQSJ9.eyJ" + secret + "." + secret},
		{"jwt over lines", "eyJhbGciOiJFZERTQSJ9\n.\neyJ" + secret + "\n." + secret},
		{"bearer", "curl -H 'X: Bearer " + secret + "'"},
		{"authorization", "Authorization: Basic " + secret},
		{"authorization in JSON", `{"Authorization":"Basic ` + secret + `"}`},
		{"cookie", "Cookie: session=" + secret},
		{"url", "tls://user:" + secret + "@bus.example.org:4222"},
		{"url with a slash in the password", "https://user:a/" + secret + "@bus.example.org/x"},
		{"url, user only", "nats://" + secret + "@bus"},
		{"url in JSON", `"nats:\/\/u:` + secret + `@bus"`},
		{"yaml", "password: " + secret},
		{"yaml, quoted", "clientSecret: '" + secret + "'"},
		{"yaml, double quoted over lines", "api_key: \"a\n  " + secret + "\""},
		{"yaml, block", "passphrase: |\n  first\n  " + secret + "\nnext: 1"},
		{"yaml, flow", "{user: x, password: " + secret + "}"},
		{"json", `{"dbPassword":"` + secret + `"}`},
		{"json in json", `{"body":"{\"password\":\"` + secret + `\"}"}`},
		{"environment", "SIGNET_TOKEN=" + secret},
		{"value on the next line", "password:\n  " + secret + "\nnext: 1"},
		{"value that goes on", "passphrase: a\n  " + secret + "\nnext: 1"},
		{"after the name of a file", "{tokenFile: a, password: " + secret + "}"},
		{"quote that never ends", "password: \"" + secret + "\nnext: 1"},
		{"quote of another value", "password: \"open\nsecret: \"" + secret + "\"\n"},
		{"option", "signet-bridge --password " + secret},
		{"option with sign", "x --api-key=" + secret},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := Redact([]byte(tt.in))
			if bytes.Contains(got, []byte(secret)) || !bytes.Contains(got, []byte(Marker)) {
				t.Errorf("got %q", got)
			}
			if again := Redact(got); bytes.Contains(again, []byte(secret)) || len(again) > 4*len(tt.in)+64 {
				t.Errorf("again: %q", again)
			}
		})
	}
}

// What a bundle is for must stay readable.
func TestWhatIsNoSecretStays(t *testing.T) {
	seed := newSeed(t, nkeys.CreateUser)
	for _, s := range []string{
		"identities: [{nkey: " + publicOf(t, seed) + "}]",
		"nkeySeedFile: /etc/signet/creds/app.nk",
		"key: tls/server.key\nkeys: {node: keys/node.seed, keyring: keys/keyring.json}",
		`{"id":"DISK_002","object":"/var/lib/signet/keys/root.seed","severity":"ok"}`,
		`signet_refusals_total{code="40101",name="publish-denied"} 3`,
		"tls://bus.example.org:4222",
		"digest: 3f2a0c0d7be0d8f1e2c4a4d3b6b8a9f0c1d2e3f405162738495a6b7c8d9e0f10",
		"-----BEGIN CERTIFICATE-----\nMIIB8zCCAZmgAwIBAgIQ\n-----END CERTIFICATE-----",
	} {
		if got := string(Redact([]byte(s))); got != s {
			t.Errorf("%q became %q", s, got)
		}
	}
}

// A log may be made by an attacker: no form costs more than its length. The limit is
// a hundred times what it takes, and less than what a search from every end line took.
func TestCostGrowsWithTheLength(t *testing.T) {
	const limit = 15 * time.Second
	for _, s := range []string{
		"SU ", "password: '", "tokenFile: ", "-----BEGIN ", "-----END PRIVATE KEY----- ", "eyJaaaaaaaaa.", "signet-node-v1\n", "password:\n   x\n",
	} {
		in := []byte(strings.Repeat(s, (128<<10)/len(s)))
		start := time.Now()
		out := Redact(in)
		if took := time.Since(start); took > limit || len(out) > 4*len(in)+64 {
			t.Errorf("%q: %d bytes became %d in %s", s, len(in), len(out), took)
		}
	}
}

// A seed stays hidden whatever stands around and inside it, and the result has a
// bound.
func FuzzRedact(f *testing.F) {
	seed := newSeed(f, nkeys.CreateServer)
	for _, s := range []string{"", " ", "\n", `" + "`, "S", "SU", `\n`, `\`, "://@", "password: |\n", "-----BEGIN PRIVATE KEY-----", "eyJ", "signet-node-v1", "'", "\xff", "s"} {
		f.Add([]byte(s), []byte(s), uint8(7), []byte(" "))
		f.Add([]byte("a"), []byte("z"), uint8(3), []byte(s))
	}
	f.Fuzz(func(t *testing.T, before, after []byte, at uint8, between []byte) {
		cut := int(at) % len(seed)
		// What may stand inside: blanks, quotes and the like, not too much of it.
		inside := bytes.Map(func(r rune) rune {
			if strings.ContainsRune(" \t\r\n\"'`,+>|#-", r) {
				return r
			}
			return -1
		}, between)
		inside = inside[:min(len(inside), maxGap)]
		in := bytes.Join([][]byte{before, []byte(seed[:cut]), inside, []byte(seed[cut:]), after}, nil)
		got := Redact(in)
		if len(got) > 4*len(in)+64 {
			t.Errorf("%d bytes became %d", len(in), len(got))
		}
		// The planted one, unless the text around has it too.
		if s := squeeze(got); strings.Contains(s, seed) {
			t.Errorf("%q became %q", in, got)
		}
		_ = Redact(after)
	})
}

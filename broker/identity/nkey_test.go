package identity

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

type user struct {
	public string
	pair   nkeys.KeyPair
}

func newUser(t testing.TB) user {
	t.Helper()
	pair, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, err := pair.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return user{public, pair}
}

func (u user) sign(t testing.TB, nonce string) []byte {
	t.Helper()
	sig, err := u.pair.Sign([]byte(nonce))
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

func compile(t testing.TB, text string) *policy.Set {
	t.Helper()
	b, err := policy.Parse("test.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	set, err := policy.Compile(b)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func testPolicy(t testing.TB, alice, off user) *policy.Set {
	return compile(t, fmt.Sprintf(`tenant: shop
principals:
  - {name: alice, identities: [{nkey: %s}]}
  - {name: gone, disabled: true, identities: [{nkey: %s}]}
`, alice.public, off.public))
}

func TestNkey(t *testing.T) {
	alice, gone, mallory := newUser(t), newUser(t), newUser(t)
	set := testPolicy(t, alice, gone)
	nonce := NewNonce()
	good := alice.sign(t, nonce)
	url, std := base64.RawURLEncoding.EncodeToString, base64.StdEncoding.EncodeToString
	account, err := nkeys.CreateAccount()
	if err != nil {
		t.Fatal(err)
	}
	accountPublic, err := account.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(good)
	flipped[0] ^= 1
	for _, tc := range []struct {
		name string
		cred Credentials
		set  *policy.Set
		want wire.Code // 0: admitted as alice
	}{
		{"base64url", Credentials{NkeyPublic: alice.public, Signature: url(good), Nonce: nonce}, set, 0},
		{"standard base64", Credentials{NkeyPublic: alice.public, Signature: std(good), Nonce: nonce}, set, 0},
		{"nothing", Credentials{Nonce: nonce}, set, wire.CodeAuthRequired},
		{"another nonce", Credentials{NkeyPublic: alice.public, Signature: url(good), Nonce: NewNonce()}, set, wire.CodeAuthFailed},
		{"no nonce", Credentials{NkeyPublic: alice.public, Signature: url(alice.sign(t, ""))}, set, wire.CodeAuthFailed},
		{"long nonce", Credentials{NkeyPublic: alice.public, Signature: url(alice.sign(t, nonce+"x")), Nonce: nonce + "x"}, set, wire.CodeAuthFailed},
		{"signed by another key", Credentials{NkeyPublic: alice.public, Signature: url(mallory.sign(t, nonce)), Nonce: nonce}, set, wire.CodeAuthFailed},
		{"unknown key", Credentials{NkeyPublic: mallory.public, Signature: url(mallory.sign(t, nonce)), Nonce: nonce}, set, wire.CodeAuthFailed},
		{"disabled principal", Credentials{NkeyPublic: gone.public, Signature: url(gone.sign(t, nonce)), Nonce: nonce}, set, wire.CodeAuthFailed},
		{"no policy", Credentials{NkeyPublic: alice.public, Signature: url(good), Nonce: nonce}, nil, wire.CodeAuthFailed},
		{"account key", Credentials{NkeyPublic: accountPublic, Signature: url(good), Nonce: nonce}, set, wire.CodeAuthFailed},
		{"key in lower case", Credentials{NkeyPublic: strings.ToLower(alice.public), Signature: url(good), Nonce: nonce}, set, wire.CodeAuthFailed},
		{"key with a space", Credentials{NkeyPublic: alice.public + " ", Signature: url(good), Nonce: nonce}, set, wire.CodeAuthFailed},
		{"no signature", Credentials{NkeyPublic: alice.public, Nonce: nonce}, set, wire.CodeAuthFailed},
		{"no key", Credentials{Signature: url(good), Nonce: nonce}, set, wire.CodeAuthFailed},
		{"truncated signature", Credentials{NkeyPublic: alice.public, Signature: url(good[:63]), Nonce: nonce}, set, wire.CodeAuthFailed},
		{"long signature", Credentials{NkeyPublic: alice.public, Signature: url(append(bytes.Clone(good), 0)), Nonce: nonce}, set, wire.CodeAuthFailed},
		{"flipped bit", Credentials{NkeyPublic: alice.public, Signature: url(flipped), Nonce: nonce}, set, wire.CodeAuthFailed},
		{"not base64", Credentials{NkeyPublic: alice.public, Signature: "%%%", Nonce: nonce}, set, wire.CodeAuthFailed},
		{"signature with a character too many", Credentials{NkeyPublic: alice.public, Signature: url(good) + "!", Nonce: nonce}, set, wire.CodeAuthFailed},
		{"JWT beside a good nkey", Credentials{NkeyPublic: alice.public, Signature: url(good), Nonce: nonce, JWT: "x"}, set, wire.CodeAuthFailed},
		{"token beside a good nkey", Credentials{NkeyPublic: alice.public, Signature: url(good), Nonce: nonce, AuthToken: "x"}, set, wire.CodeAuthFailed},
		{"user beside a good nkey", Credentials{NkeyPublic: alice.public, Signature: url(good), Nonce: nonce, User: "x"}, set, wire.CodeAuthFailed},
		{"password beside a good nkey", Credentials{NkeyPublic: alice.public, Signature: url(good), Nonce: nonce, Pass: "x"}, set, wire.CodeAuthFailed},
		{"JWT alone", Credentials{Nonce: nonce, JWT: "x"}, set, wire.CodeAuthFailed},
		{"user and password", Credentials{Nonce: nonce, User: "alice", Pass: "x"}, set, wire.CodeAuthFailed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			login, refusal := Nkey(t.Context(), tc.set, &tc.cred)
			p := login.Principal
			if tc.want == 0 {
				if refusal != nil || p == nil || p.FullName() != "shop/alice" {
					t.Fatalf("got %v, %v; want shop/alice", p, refusal)
				}
				return
			}
			if p != nil || refusal == nil || refusal.Code != tc.want {
				t.Fatalf("got %v, %v; want a refusal of %v", p, refusal, tc.want)
			}
			// The answer must not tell one reason from another.
			want := wire.Refuse(tc.want, rule, "")
			if got, want := string(refusal.Answer("", false)), string(want.Answer("", false)); got != want || refusal.Error() != wire.Refuse(tc.want, rule, "").Error() {
				t.Errorf("the answer says more than the code:\n%s\n%s", got, want)
			}
			if tc.want == wire.CodeAuthFailed && (refusal.Explain == nil || refusal.Explain.Fix == "") {
				t.Error("the audit record gets no reason")
			}
			for _, secret := range []string{tc.cred.Signature, tc.cred.JWT, tc.cred.Pass} {
				if len(secret) > 1 && refusal.Explain != nil && strings.Contains(refusal.Explain.Fix, secret) {
					t.Errorf("the reason holds a credential: %q", refusal.Explain.Fix)
				}
			}
		})
	}
}

func TestNewNonce(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		n := NewNonce()
		if raw, err := base64.RawURLEncoding.DecodeString(n); err != nil || len(n) != nonceChars || len(raw) != nonceBytes || seen[n] {
			t.Fatalf("nonce %q: %v, seen %v", n, err, seen[n])
		}
		seen[n] = true
	}
}

// Whatever is presented without the seed is refused, and nothing panics.
func FuzzNkey(f *testing.F) {
	alice := newUser(f)
	set := testPolicy(f, alice, newUser(f))
	nonce := NewNonce()
	other := NewNonce()
	f.Add(alice.public, base64.RawURLEncoding.EncodeToString(alice.sign(f, other)), "", "")
	f.Add(alice.public, "", "jwt", "token")
	f.Fuzz(func(t *testing.T, public, sig, jwt, token string) {
		login, refusal := Nkey(t.Context(), set, &Credentials{NkeyPublic: public, Signature: sig, Nonce: nonce, JWT: jwt, AuthToken: token})
		if login.Principal != nil || refusal == nil {
			t.Fatalf("admitted %v", login)
		}
	})
}

func BenchmarkNkey(b *testing.B) {
	alice := newUser(b)
	set := testPolicy(b, alice, newUser(b))
	nonce := NewNonce()
	c := &Credentials{NkeyPublic: alice.public, Signature: base64.RawURLEncoding.EncodeToString(alice.sign(b, nonce)), Nonce: nonce}
	for b.Loop() {
		if _, r := Nkey(b.Context(), set, c); r != nil {
			b.Fatal(r)
		}
	}
}

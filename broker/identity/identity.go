// Package identity turns what a client presented, in its certificate and in CONNECT,
// into a principal of the policy.
//
// An authenticator is a pure function of the policy, the credentials, what the operator
// trusts and the clock; it starts nothing, keeps nothing and may be called from any
// goroutine. Every way to fail gives the caller the same answer, so that nobody can
// learn from it which names the policy knows; the reason stands in the refusal's
// Explain, which goes to the audit record.
//
// Whatever is presented must hold. A proof that fails is never passed over for another
// one beside it, and several proofs must be of one principal. The policy says which
// names a principal has, [Trust] says who may vouch for which names of which tenant:
// both must agree. Rules and reasons: docs/spec/authentication.md.
package identity

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"time"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

// Credentials are what one connection presented. The zero value of a field means
// that it was not presented.
type Credentials struct {
	NkeyPublic string // CONNECT nkey
	Signature  string // CONNECT sig, base64
	Nonce      string // the nonce that the broker itself sent in INFO, not one from the client
	JWT        string
	AuthToken  string
	User, Pass string
	TLS        *tls.ConnectionState // nil without a client certificate; the certificates are not verified, but the client has the key
	RemoteAddr string
}

// Login is what a connection proved.
type Login struct {
	Principal *policy.Principal
	Method    string    // MethodNkey, MethodCertificate or MethodToken; the first where there were several
	Name      string    // the name of the policy that was proven, such as the SPIFFE ID
	Until     time.Time // when the proof that ends first does; zero: none does
}

// Words of Login.Method and of the configuration, in the order in which proofs are checked.
const (
	MethodCertificate = "certificate"
	MethodNkey        = "nkey"
	MethodToken       = "token"
)

// Authenticator decides who a connection is. It returns a login whose principal is of
// set and not disabled, or a refusal of CodeAuthRequired (nothing was presented) or
// CodeAuthFailed; never both and never neither. set is the policy to decide by;
// nil refuses everyone.
type Authenticator func(ctx context.Context, set *policy.Set, c *Credentials) (Login, *wire.Refusal)

// nonceBytes gives 15 characters of base64url, the length of nats-server's nonces,
// which clients check before they sign.
const (
	nonceBytes = 11
	nonceChars = 15
)

// NewNonce returns a fresh nonce for one connection: 88 random bits as 15
// characters of base64url.
func NewNonce() string {
	var b [nonceBytes]byte
	rand.Read(b[:]) // never fails; it would crash the process first
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// rule names the built-in check in refusals; it is the same for every reason.
const rule = "authentication"

func required() *wire.Refusal { return wire.Refuse(wire.CodeAuthRequired, rule, "") }

// failed is the one answer to every failure; why is for the audit record.
func failed(why string) *wire.Refusal {
	r := wire.Refuse(wire.CodeAuthFailed, rule, "")
	r.Explain = &wire.Explanation{Fix: why}
	return r
}

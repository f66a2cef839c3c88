package identity

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4/json"

	"github.com/signetbus/signet/broker/policy"
)

// tokenClaims are what a token says. all has every claim as it stands.
type tokenClaims struct {
	Issuer, Subject              string
	Audience                     []string
	Expires, NotBefore, IssuedAt time.Time // zero: not said
	all                          map[string]json.RawMessage
}

var errClaims = errors.New("its claims cannot be read: one JSON object without repeated members is wanted")

// parseClaims reads the payload of a token. Member names are taken byte for byte, and a
// repeated one is refused: two readers must not see two things.
func parseClaims(payload []byte) (*tokenClaims, error) {
	c := &tokenClaims{}
	if err := json.Unmarshal(payload, &c.all); err != nil || c.all == nil {
		return nil, errClaims
	}
	var faults []string
	text := func(name string, to *string) {
		if raw, ok := c.all[name]; !ok || json.Unmarshal(raw, to) != nil || *to == "" || len(*to) > 255 || strings.ContainsFunc(*to, notPrintable) {
			faults = append(faults, name)
		}
	}
	when := func(name string, to *time.Time) {
		raw, ok := c.all[name]
		if !ok {
			return
		}
		var seconds float64
		if bytes.Equal(raw, []byte("null")) || json.Unmarshal(raw, &seconds) != nil || seconds <= 0 || seconds > 1<<40 {
			faults = append(faults, name)
			return
		}
		*to = time.Unix(int64(seconds), 0)
	}
	text("iss", &c.Issuer)
	text("sub", &c.Subject)
	when("exp", &c.Expires)
	when("nbf", &c.NotBefore)
	when("iat", &c.IssuedAt)
	if c.Audience = texts(c.all["aud"]); c.Audience == nil {
		faults = append(faults, "aud")
	}
	if len(faults) > 0 {
		return nil, fmt.Errorf("its claims %s are missing or malformed", strings.Join(faults, ", "))
	}
	return c, nil
}

// issuerOf reads the issuer of a payload that nobody has vouched for yet.
func issuerOf(payload []byte) (string, error) {
	c, err := parseClaims(payload)
	if err != nil {
		return "", err
	}
	return c.Issuer, nil
}

func notPrintable(r rune) bool { return r < ' ' || r >= 0x7f }

// texts reads a string or a list of strings; nil for anything else.
func texts(raw json.RawMessage) []string {
	var one string
	var list []string
	switch {
	case len(raw) == 0:
	case raw[0] == '"' && json.Unmarshal(raw, &one) == nil:
		return []string{one}
	case raw[0] == '[' && json.Unmarshal(raw, &list) == nil:
		return list
	}
	return nil
}

// has reports whether the token bears the claim: that text alone or in a list, or that
// truth value.
func (c *tokenClaims) has(want policy.Claim) bool {
	raw := bytes.TrimSpace(c.all[want.Name])
	if want.Bool != nil {
		return string(raw) == fmt.Sprint(*want.Bool)
	}
	return slices.Contains(texts(raw), want.Text)
}

// agrees reports whether the namespace and the account that Kubernetes puts beside the
// subject, if it does, are those of the subject.
func (c *tokenClaims) agrees(namespace, name string) bool {
	raw, ok := c.all["kubernetes.io"]
	if !ok {
		return true
	}
	var said struct {
		Namespace string `json:"namespace"`
		Account   struct {
			Name string `json:"name"`
		} `json:"serviceaccount"`
	}
	return json.Unmarshal(raw, &said) == nil && said.Namespace == namespace && said.Account.Name == name
}

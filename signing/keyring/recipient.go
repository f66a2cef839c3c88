package keyring

import (
	"crypto/ecdh"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/internal/wire"
)

// errCurvePoint is about what nkeys takes for an X25519 key.
var errCurvePoint = errors.New("not a usable X25519 public key: of small order, or not in its one encoding")

// algOf is the algorithm of the keys of a role.
func algOf(role string) string {
	if role == RoleRecipient {
		return AlgX25519
	}
	return AlgEd25519
}

// CheckRecipientKey reports whether public is an nkeys X25519 public key (X...) that can
// be encrypted to: one of small order, which nkeys lets pass, has a shared secret that
// everybody knows.
func CheckRecipientKey(public string) error {
	_, err := decodePublic(public, nkeys.PrefixByteCurve)
	return err
}

// checkCurvePoint refuses points of small order and every encoding but the canonical
// one: X25519 ignores the top bit and takes numbers from 2^255-19 on.
func checkCurvePoint(raw []byte) error {
	if len(raw) != 32 {
		return errCurvePoint
	}
	// p = 2^255-19, little endian.
	if raw[31] == 0x7f && raw[0] >= 0xed && !slices.ContainsFunc(raw[1:31], func(b byte) bool { return b != 0xff }) || raw[31] > 0x7f {
		return errCurvePoint
	}
	curve := ecdh.X25519()
	point, err := curve.NewPublicKey(raw)
	if err != nil {
		return errCurvePoint
	}
	// Every private key is a multiple of 8: with a point of small order each gives zero,
	// which ECDH refuses.
	any8, err := curve.NewPrivateKey(append([]byte{8}, make([]byte, 31)...))
	if err != nil {
		return errCurvePoint
	}
	if _, err := any8.ECDH(point); err != nil {
		return errCurvePoint
	}
	return nil
}

// MeetsSubjects reports whether the key may sign or read on some of the subjects of a
// filter: one that CoversSubject is true of.
func (k *Key) MeetsSubjects(filter string) bool {
	return len(k.Subjects) == 0 || slices.ContainsFunc(k.Subjects, func(pattern string) bool { return wire.Overlap(pattern, filter) })
}

// Recipients returns the recipient keys of a tenant that may read the payloads of a
// literal NATS subject at the time now, ascending, and the first time after now at
// which that changes by itself; zero if it does not.
func (r *Ring) Recipients(tenant, natsSubject string, now time.Time) (ids []string, until time.Time) {
	for i := range r.keys {
		k := &r.keys[i]
		if k.Role != RoleRecipient || !strings.HasPrefix(k.Principal, tenant+"/") || !k.CoversSubject(natsSubject) {
			continue
		}
		if k.ValidAt(now) {
			ids = append(ids, k.ID)
		}
		for _, t := range [...]time.Time{k.NotBefore, k.NotAfter, k.RevokedAt} {
			if t.After(now) && (until.IsZero() || t.Before(until)) {
				until = t
			}
		}
	}
	return ids, until
}

// HasOtherRecipients reports whether the ring has recipient keys of another tenant,
// valid or not: whoever encrypts must then know which tenant is meant.
func (r *Ring) HasOtherRecipients(tenant string) bool {
	return slices.ContainsFunc(r.keys, func(k Key) bool {
		return k.Role == RoleRecipient && !strings.HasPrefix(k.Principal, tenant+"/")
	})
}

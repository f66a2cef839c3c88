package signing

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/signetbus/signet/signing/keyring"
)

// ErrNodeToken: a node token that does not prove what it must.
var ErrNodeToken = errors.New("signing: node token refused")

// nodeTokenKind begins every node token; a change of form gets another one.
const nodeTokenKind = "signet-node-v1" //nolint:gosec // names a form, is no secret

var clusterName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// ValidClusterName says whether name can be the name of a cluster: 1 to 64 of
// A-Z a-z 0-9 _ -.
func ValidClusterName(name string) bool { return clusterName.MatchString(name) }

// NodeToken is what a node shows to the others when it joins: its attestation key
// signs the names of the cluster and of the node. It has no end of its own; the
// keyring says until when the key is good, and revokes it. By itself it opens
// nothing: routes also need a certificate of the same node.
// docs/spec/cluster.md has the form.
func NodeToken(s *Signer, cluster, node string) string {
	sig := ed25519.Sign(s.private, nodeStatement(cluster, node, s.id))
	return strings.Join([]string{nodeTokenKind, cluster, s.id, base64.RawURLEncoding.EncodeToString(sig)}, ".")
}

// VerifyNodeToken checks that token was signed by a key that ring gives the broker
// node, and is for cluster. The key is valid now; or it has ended, is not revoked, and
// the node has another one that is valid now: a node keeps the token that it has shown
// when it goes over to its next key, because routes that are made anew lose what is on
// its way over them.
//
// Errors: ErrNodeToken; its text says what is wrong and never shows the token.
func VerifyNodeToken(token, cluster, node string, ring *keyring.Ring, now time.Time) error {
	refuse := func(format string, v ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{ErrNodeToken}, v...)...)
	}
	part := strings.Split(token, ".")
	if len(part) != 4 || part[0] != nodeTokenKind {
		return refuse("node %q shows no token of this form", node)
	}
	if part[1] != cluster {
		return refuse("node %q belongs to the cluster %q, this is %q", node, part[1], cluster)
	}
	key, ok := ring.ByID(part[2])
	switch {
	case !ok:
		return refuse("node %q: its key %q is not in the keyring here", node, part[2])
	case key.Role != keyring.RoleBroker || key.Principal != node:
		return refuse("node %q: the keyring gives its key to %s %q", node, key.Role, key.Principal)
	case !key.ValidAt(now) && !(endedOnly(&key, now) && hasValidKey(ring, node, now)):
		return refuse("node %q: its key is not valid now", node)
	}
	sig, err := base64.RawURLEncoding.Strict().DecodeString(part[3])
	if err == nil && base64.RawURLEncoding.EncodeToString(sig) != part[3] {
		err = ErrNodeToken // line ends, which every decoder of the package skips
	}
	if err != nil || len(sig) != ed25519.SignatureSize || !ed25519.Verify(key.Public(), nodeStatement(cluster, node, key.ID), sig) {
		return refuse("node %q: the signature does not match", node)
	}
	return nil
}

// endedOnly: the key has run out, and nothing else is wrong with it.
func endedOnly(k *keyring.Key, now time.Time) bool {
	return !now.Before(k.NotAfter) && k.RevokedAt.IsZero()
}

func hasValidKey(ring *keyring.Ring, node string, now time.Time) bool {
	return slices.ContainsFunc(ring.Keys(), func(k keyring.Key) bool {
		return k.Role == keyring.RoleBroker && k.Principal == node && k.ValidAt(now)
	})
}

// nodeStatement is what is signed. It starts unlike a PAE and unlike the note of a
// tree, so no signature passes for another.
func nodeStatement(cluster, node, key string) []byte {
	return fmt.Appendf(nil, "signet/node/v1\n%s\n%s\n%s\n", cluster, node, key)
}

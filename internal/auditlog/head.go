package auditlog

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
)

// HeadType is the payload type of a head. A signature of a head never passes for one
// of anything else.
const HeadType = "application/vnd.signet.audit-head.v1+json"

// MaxHeadChains bounds the chains of one head: one for each node.
const MaxHeadChains = 256

// ChainID names a chain: the node that writes it, and what it drew when it began.
type ChainID struct {
	Node  string `json:"node"`
	Chain string `json:"chain"`
}

// Position is how far a chain is.
type Position struct {
	ChainID
	Seq  uint64 `json:"seq"`
	Hash string `json:"hash"` // of the record Seq
}

// Head says how far chains of a tenant are at a time. The node that signs it vouches
// for its own chain, and for the others that the stream has them.
type Head struct {
	V      int        `json:"v"`
	Tenant string     `json:"tenant"`
	Node   string     `json:"node"` // that signs
	Time   time.Time  `json:"time"`
	Seal   bool       `json:"seal,omitempty"` // made on request, to be kept elsewhere or to close an export; false: it ends a batch
	Chains []Position `json:"chains"`         // ascending by node and chain
}

// Sign returns the signed head, one line of JSON. It sorts h.Chains and takes Time to
// UTC and microseconds.
//
// Errors: ErrHead, signing.ErrStatement.
func (h *Head) Sign(s *signing.Signer) ([]byte, error) {
	h.V, h.Time = Version, h.Time.UTC().Truncate(time.Microsecond)
	slices.SortFunc(h.Chains, comparePositions)
	if err := h.check(); err != nil {
		return nil, err
	}
	payload, err := compact(h)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrHead, err)
	}
	return s.SignStatement(HeadType, payload)
}

// OpenHead reads a signed head and checks that the keyring knows the key as that of
// the node, and that it was valid then.
//
// Errors: ErrHead (also ErrKeyTime if nothing else is wrong), and those of
// signing.VerifyStatement.
func OpenHead(doc []byte, ring *keyring.Ring) (*Head, error) {
	h, key, err := readHead(doc, ring)
	if err == nil && !key.ValidAt(h.Time) {
		return nil, fmt.Errorf("%w: %w: %s at %s", ErrHead, ErrKeyTime, key.ID, h.Time.Format(time.RFC3339))
	}
	if err != nil {
		return nil, err
	}
	return h, nil
}

// readHead is OpenHead without a look at when the key was valid.
func readHead(doc []byte, ring *keyring.Ring) (*Head, keyring.Key, error) {
	payload, key, err := signing.VerifyStatement(doc, HeadType, ring)
	if err != nil {
		return nil, key, err
	}
	var h Head
	if err := strict(payload, &h); err != nil {
		return nil, key, fmt.Errorf("%w: %w", ErrHead, err)
	}
	if err := h.check(); err != nil {
		return nil, key, err
	}
	if again, err := compact(&h); err != nil || !bytes.Equal(again, payload) {
		return nil, key, fmt.Errorf("%w: not in the one encoding", ErrHead)
	}
	if key.Principal != h.Node {
		return nil, key, fmt.Errorf("%w: it is of node %q and signed with the key of %q", ErrHead, h.Node, key.Principal)
	}
	return &h, key, nil
}

func (h *Head) check() error {
	switch {
	case h.V != Version:
		return fmt.Errorf("%w: version %d, want %d", ErrHead, h.V, Version)
	case h.Tenant == "" || h.Node == "" || h.Time.IsZero() || h.Time.Location() != time.UTC:
		return fmt.Errorf("%w: tenant, node or time is missing", ErrHead)
	case len(h.Chains) > MaxHeadChains:
		return fmt.Errorf("%w: %d chains, limit %d", ErrHead, len(h.Chains), MaxHeadChains)
	}
	for i := range h.Chains {
		p := &h.Chains[i]
		if p.Node == "" || !chainOK(p.Chain) || p.Seq == 0 || !hashOK(p.Hash) {
			return fmt.Errorf("%w: chain %d is malformed", ErrHead, i)
		}
		if i > 0 && comparePositions(h.Chains[i-1], *p) >= 0 {
			return fmt.Errorf("%w: the chains are not in order", ErrHead)
		}
	}
	return nil
}

func comparePositions(a, b Position) int {
	if c := strings.Compare(a.Node, b.Node); c != 0 {
		return c
	}
	return strings.Compare(a.Chain, b.Chain)
}

// isEnvelope tells a head's line from a record's.
func isEnvelope(line []byte) bool { return bytes.HasPrefix(line, []byte(`{"payloadType":`)) }

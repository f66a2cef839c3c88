package keyring

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/internal/wire"
)

// Limits of what bounds a producer key.
const (
	MaxPatterns    = 64  // per key, of Sources and of Subjects
	MaxSourceBytes = 256 // of one source pattern; a subject pattern has wire.MaxSubjectBytes
)

// loadPatterns brings Sources and Subjects to their written form: sorted, each
// once. They become copies.
func (k *Key) loadPatterns() error {
	switch {
	case k.Role == RoleRecipient && (len(k.Sources) > 0 || len(k.Subjects) == 0):
		// Whoever forgets to say what a key may read must not give it everything.
		return errors.New("a recipient names its subjects, > for all of its tenant, and no sources")
	case k.Role == RoleBroker && len(k.Sources)+len(k.Subjects) > 0:
		return fmt.Errorf("sources and subjects bound keys of producers and recipients, not the role %s", k.Role)
	}
	var err error
	if k.Sources, err = patterns("sources", k.Sources, checkSource); err != nil {
		return err
	}
	k.Subjects, err = patterns("subjects", k.Subjects, wire.CheckFilter[string])
	return err
}

func patterns(what string, list []string, check func(string) error) ([]string, error) {
	if len(list) == 0 {
		return nil, nil
	}
	if len(list) > MaxPatterns {
		return nil, fmt.Errorf("%d %s, limit %d", len(list), what, MaxPatterns)
	}
	for _, p := range list {
		if err := check(p); err != nil {
			return nil, fmt.Errorf("%s: %q: %w", what, p, err)
		}
	}
	list = slices.Clone(list)
	slices.Sort(list)
	return slices.Clip(slices.Compact(list)), nil
}

// checkSource is the grammar of sources in the policy: exact, or a prefix and one
// *. Quote and backslash would need an escape in the document and are in no URI.
func checkSource(s string) error {
	switch body := strings.TrimSuffix(s, "*"); {
	case s == "" || len(s) > MaxSourceBytes:
		return fmt.Errorf("1 to %d characters are wanted", MaxSourceBytes)
	case strings.Contains(body, "*"):
		return fmt.Errorf("a * may only stand at the end")
	case strings.ContainsFunc(body, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '"' || r == '\\' }):
		return fmt.Errorf("printable ASCII without spaces, quotes and backslashes is wanted")
	}
	return nil
}

// CoversSource reports whether the key may sign events of this source. A key
// without Sources may sign all that its principal is granted.
func (k *Key) CoversSource(source string) bool {
	return len(k.Sources) == 0 || slices.ContainsFunc(k.Sources, func(pattern string) bool {
		prefix, open := strings.CutSuffix(pattern, "*")
		return pattern == source || open && strings.HasPrefix(source, prefix)
	})
}

// CoversSubject reports whether the key may sign events on this literal NATS
// subject, or as a recipient read them. A key without Subjects may sign on all that its
// principal is granted.
func (k *Key) CoversSubject(natsSubject string) bool {
	return len(k.Subjects) == 0 || slices.ContainsFunc(k.Subjects, func(pattern string) bool {
		return wire.Match(pattern, natsSubject)
	})
}

// SameAs reports whether id is the same key, under whatever nkeys prefix.
func (k *Key) SameAs(id string) bool {
	text, err := nkeys.Encode(nkeys.Prefix(id), k.Public())
	return err == nil && string(text) == id
}

// appendPatterns writes one member, or nothing for an empty list.
func appendPatterns(b []byte, member string, list []string) []byte {
	if len(list) == 0 {
		return b
	}
	b = append(b, member...)
	for i, p := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '"')
		b = append(b, p...)
		b = append(b, '"')
	}
	return append(b, ']')
}

// clone returns k with lists of its own.
func (k Key) clone() Key {
	k.Sources, k.Subjects = slices.Clone(k.Sources), slices.Clone(k.Subjects)
	return k
}

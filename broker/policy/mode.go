package policy

import "github.com/goccy/go-yaml/ast"

// Mode says what a rule does to what it is against.
type Mode uint8

const (
	// ModeEnforce refuses it. The default.
	ModeEnforce Mode = iota
	// ModeAudit lets it through and counts it.
	ModeAudit
	// ModeOff lets it through.
	ModeOff

	modeUnset // of a principal: as its tenant
)

var modeWords = [...]string{"enforce", "audit", "off"}

// String returns the word of the policy.
func (m Mode) String() string {
	if int(m) < len(modeWords) {
		return modeWords[m]
	}
	return modeWords[ModeEnforce]
}

func (r *docReader) mode(n ast.Node) Mode {
	// A bare off is a boolean to some YAML readers; to this one it is a word.
	v, ok := r.text(n, "mode")
	for i, word := range modeWords {
		if v == word {
			return Mode(i)
		}
	}
	if ok {
		r.fault(n, "mode: enforce, audit or off is wanted, not %q", v)
	}
	return ModeEnforce
}

func (m *merged) modeOf(d *principalDecl) Mode {
	if d.mode == modeUnset {
		return m.mode
	}
	return d.mode
}

// Declares reports whether the filter lies inside one declared event or ephemeral
// subject of the tenant. The filter is not retained.
func (t *Tenant) Declares(filter string) bool {
	return t.streamIndex.covers(filter) >= 0 || t.ephemeral.covers(filter) >= 0
}

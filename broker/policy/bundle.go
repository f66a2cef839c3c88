package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Limits on a whole bundle.
const (
	MaxFiles       = 256
	MaxBundleBytes = 32 << 20 // policy and schema files together
	MaxSchemaBytes = 4 << 20  // one schema file
)

// Source is one policy file.
type Source struct {
	Name string // as it stands in faults
	Data []byte
}

// Bundle is a parsed policy. Load, Parse and ParseAll return it only when it is
// valid. It is immutable.
type Bundle struct {
	docs   []*document
	digest string
	valid  bool // it was validated when it was read, and does not change
}

// document is one YAML document, or what could be read of it.
type document struct {
	tenant     string
	at         Position
	streams    []Stream
	ephemeral  []word
	kv         []Bucket
	objects    []Bucket
	roles      []roleDecl
	principals []principalDecl
	limits     []Limit
	limitAll   []word // of every principal
	schemas    []SchemaDoc
	bindings   []bindingDecl
	deadLetter *DeadLetter
	audit      *Audit
	quota      *Quota
	retry      *retryDecl
	mode       Mode
	modeAt     Position
}

// word is a string with its place.
type word struct {
	text string
	at   Position
}

// grantDecl is what roles and principals have in common.
type grantDecl struct {
	grants map[string][]Grant // by verb, "discover" included
	limits []word
	// priority is nil where the key is absent.
	priority *Priority
}

type roleDecl struct {
	name string
	at   Position
	grantDecl
}

type principalDecl struct {
	name       string
	at         Position
	disabled   bool
	until      time.Time // zero: for ever
	mode       Mode
	nkeys      []word
	identities Identities
	roles      []roleUse
	grantDecl
}

// roleUse is a role that a principal has, for ever or until a moment.
type roleUse struct {
	word
	until time.Time
}

type bindingDecl struct {
	Binding
	schema  word
	version int // 0 is the newest
	// plainSaid: encrypted: false stands there.
	plainSaid bool
}

// opener returns the contents of a schema file that a policy file names, and its path.
type opener func(policyFile, rel string) (data []byte, path string, err error)

// Parse reads one policy file. References to schema files are faults, since there
// is no directory to look in; Load resolves them. The error joins every *Fault.
func Parse(name string, src []byte) (*Bundle, error) {
	return ParseAll([]Source{{Name: name, Data: src}})
}

// ParseAll is Parse for several files that make one policy. Documents of the same
// tenant are merged; their order means nothing.
func ParseAll(sources []Source) (*Bundle, error) { return parseAll(sources, nil) }

func parseAll(sources []Source, open opener) (*Bundle, error) {
	if len(sources) > MaxFiles {
		return nil, fmt.Errorf("policy: %d files, at most %d", len(sources), MaxFiles)
	}
	total := 0
	for _, src := range sources {
		total += len(src.Data)
	}
	if total > MaxBundleBytes {
		return nil, fmt.Errorf("policy: the bundle is over %d bytes", MaxBundleBytes)
	}
	var (
		b      Bundle
		f      faults
		broken bool
		lines  []string
	)
	for _, src := range sources {
		before := len(f.list)
		docs := parseYAML(src.Name, src.Data, &f)
		broken = broken || len(f.list) > before
		for _, d := range docs {
			if doc := readDocument(src.Name, d, open, &f); doc != nil {
				b.docs = append(b.docs, doc)
			}
		}
		lines = append(lines, "policy "+sum(src.Data))
	}
	if len(b.docs) == 0 && len(f.list) == 0 {
		f.add(Position{File: "policy"}, "there is no document in it")
	}
	// A file that is no YAML hides names that others refer to: their faults would
	// be noise. Anything else is checked on, so that one run shows every fault.
	if !broken {
		b.validate(&f)
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	for _, d := range b.docs {
		for i := range d.schemas {
			s := &d.schemas[i]
			lines = append(lines, fmt.Sprintf("schema %s %s %d %x", d.tenant, s.Name, s.Version, s.SHA256))
		}
	}
	slices.Sort(lines)
	b.valid = true
	b.digest = sum([]byte(strings.Join(lines, "\n")))
	return &b, nil
}

func sum(data []byte) string {
	h := sha256.Sum256(data)
	return hex.EncodeToString(h[:])
}

// errNoBundle is for a Bundle that Parse or Load did not make.
var errNoBundle = errors.New("policy: empty bundle; make one with Load or Parse")

// Validate checks everything that needs the whole bundle: references, repeated
// names, overlapping subjects. Parse and Load have done so already.
func (b *Bundle) Validate() error {
	if b == nil || len(b.docs) == 0 {
		return errNoBundle
	}
	var f faults
	b.validate(&f)
	return f.err()
}

// Digest returns what Set.Digest will return.
func (b *Bundle) Digest() string { return b.digest }

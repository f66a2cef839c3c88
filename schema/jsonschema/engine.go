package jsonschema

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	lib "github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/signetbus/signet/schema"
)

// The dialects that are taken; a document without $schema is 2020-12.
const (
	Draft07     = "http://json-schema.org/draft-07/schema"
	Draft202012 = "https://json-schema.org/draft/2020-12/schema"
)

// cachedTexts is how many parsed documents an Engine keeps, oldest out first.
// Validators that were made from a dropped one stay valid.
const cachedTexts = 64

const (
	// maxPatternTotal is how many times Registration.PatternSize the patterns of
	// one document may compile to together.
	maxPatternTotal = 20

	// maxOddRefs is how many different places that are not definitions a document
	// may refer to: the library copies its index of the document for each.
	maxOddRefs = 500

	// maxLibraryError is the most bytes of an error text of the library, which
	// repeats every fault of the document at length.
	maxLibraryError = 2048
)

// maxFaults is how many faults one error of Compile joins.
const maxFaults = 20

// Engine compiles JSON Schema documents. It is safe for concurrent use; documents
// with the same text share one parsed form, so many bindings into one large
// document cost one parse.
type Engine struct {
	limits schema.Limits

	mu    sync.Mutex // guards texts and order
	texts map[[32]byte]*text
	order [][32]byte
}

var _ schema.Engine = (*Engine)(nil)

// New returns an engine that keeps l (see schema.Limits for what zero means).
func New(l schema.Limits) *Engine {
	return &Engine{limits: l.Effective(), texts: map[[32]byte]*text{}}
}

// text is one document text, parsed once.
type text struct {
	mu       sync.Mutex // the library's compiler and the plan graph grow under it
	compiler *lib.Compiler
	planner  planner
	patterns map[string]*pattern // by source: the library compiles each twice
	size     int                 // instructions of all patterns
	err      error               // why the text itself is refused
	ready    bool
}

// Compile implements schema.Engine. Every error that wraps schema.ErrRefused is
// the document's: not strict JSON, over a limit, not valid against its
// metaschema, a reference that leaves the document, a pattern that is not RE2, an
// unknown format, a dialect other than draft-07 and 2020-12, a node that reaches
// itself without consuming a level of the payload, or one that costs more than
// Limits.Registration.Expanded. See docs/spec/schema.md.
func (e *Engine) Compile(ctx context.Context, d schema.Document) (schema.Validator, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("jsonschema: compile %s: %w", d.ID(), err)
	}
	if d.Format != schema.FormatJSONSchema {
		return nil, fmt.Errorf("%w: %s: format %q is not %q", schema.ErrRefused, d.ID(), d.Format, schema.FormatJSONSchema)
	}
	if d.Ref != "" && d.Ref[0] != '#' {
		return nil, fmt.Errorf("%w: %s: ref %q must begin with #", schema.ErrRefused, d.ID(), d.Ref)
	}
	p, err := e.text(&d).compile(&d, &e.limits)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", schema.ErrRefused, d.ID(), err)
	}
	return &validator{root: p, limits: e.limits}, nil
}

// text returns the entry of the document's text, which may not be parsed yet.
func (e *Engine) text(d *schema.Document) *text {
	sum := d.SHA256()
	e.mu.Lock()
	defer e.mu.Unlock()
	t := e.texts[sum]
	if t != nil {
		return t
	}
	if len(e.order) == cachedTexts {
		delete(e.texts, e.order[0])
		e.order = append(e.order[:0], e.order[1:]...)
	}
	t = &text{}
	e.texts[sum] = t
	e.order = append(e.order, sum)
	return t
}

// compile returns the plan of d.Ref after all registration checks. A panic of
// the library is an error: a document must not be able to stop the broker.
func (t *text) compile(d *schema.Document, l *schema.Limits) (p *plan, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	defer func() {
		if r := recover(); r != nil {
			// Whatever it left half done must not be used again.
			t.err = fmt.Errorf("schema compiler failed: %v", r)
			t.ready = true
			p, err = nil, t.err
		}
	}()
	if !t.ready {
		t.err = t.parse(d, l)
		t.ready = true
	}
	if t.err != nil {
		return nil, t.err
	}
	s, err := t.compiler.Compile(t.planner.base + d.Ref)
	if err != nil {
		return nil, libraryError(err)
	}
	p = t.planner.plan(s)
	return p, checkPlan(p, &l.Registration)
}

// textLimits is what a schema document may have as a JSON text.
func textLimits(l *schema.Limits) schema.Limits {
	r := l.Registration
	return schema.Limits{
		Payload: r.TextBytes, StringBytes: r.TextBytes, Depth: r.Depth + 1, // + 1: choices wrap values in an array
		Keys: r.DocumentSize, Items: r.DocumentSize, NumberBytes: l.NumberBytes, ExponentAbs: l.ExponentAbs,
	}
}

// parse makes the library's compiler for the text. Nothing that is quadratic in
// the library sees a document over DocumentSize.
func (t *text) parse(d *schema.Document, l *schema.Limits) error {
	limits := textLimits(l)
	limits.Depth = l.Registration.Depth
	scan := takeDocument()
	scanErr := scan.parse(d.Text, &limits)
	size := 0
	for i := range scan.values {
		switch scan.values[i].kind {
		case kindObject, kindTrue, kindFalse:
			size++
		}
	}
	scan.release()
	if scanErr != nil {
		return scanErr
	}
	if most := l.Registration.DocumentSize; size > most {
		return fmt.Errorf("%d objects and booleans in the document, at most %d", size, most)
	}
	doc, err := lib.UnmarshalJSON(bytes.NewReader(d.Text))
	if err != nil {
		return err
	}
	if err := checkDialect(doc); err != nil {
		return err
	}
	if n := len(oddRefs(doc, isDraft07(doc), map[string]bool{})); n > maxOddRefs {
		return fmt.Errorf("references to %d places outside of the definitions, at most %d", n, maxOddRefs)
	}
	sum := d.SHA256()
	// .invalid never resolves (RFC 2606); the loader refuses everything anyway.
	base := fmt.Sprintf("https://schema.invalid/%x", sum[:])
	c := lib.NewCompiler()
	c.DefaultDraft(lib.Draft2020)
	c.UseLoader(denyLoader{})
	c.AssertFormat()
	t.patterns = map[string]*pattern{}
	c.UseRegexpEngine(func(s string) (lib.Regexp, error) { return t.pattern(s, &l.Registration) })
	for name, check := range formatChecks {
		c.RegisterFormat(libraryFormat(name, check))
	}
	if err := c.AddResource(base, doc); err != nil {
		return err
	}
	t.compiler = c
	t.planner = planner{base: base, doc: doc, limits: l, anchors: map[string]int{}, plans: map[*lib.Schema]*plan{}}
	countAnchors(doc, t.planner.anchors)
	return nil
}

// pattern compiles a regular expression of the document; it runs under t.mu.
func (t *text) pattern(source string, r *schema.Registration) (lib.Regexp, error) {
	if p := t.patterns[source]; p != nil {
		return p, nil
	}
	if most := maxPatternTotal * r.PatternSize; t.size > most {
		return nil, fmt.Errorf("the patterns of the document compile to over %d instructions together", most)
	}
	p, err := compilePattern(source, r.PatternBytes, r.PatternSize)
	if err != nil {
		return nil, err
	}
	t.size += p.size
	t.patterns[source] = p
	return p, nil
}

// isDraft07 reports whether the document says that it is draft-07.
func isDraft07(doc any) bool {
	m, _ := doc.(map[string]any)
	s, _ := m["$schema"].(string)
	return strings.TrimSuffix(s, "#") == Draft07
}

// oddRefs collects the references by pointer to other places than definitions;
// in draft-07, $defs is no such place.
func oddRefs(v any, draft07 bool, into map[string]bool) map[string]bool {
	switch v := v.(type) {
	case map[string]any:
		for _, k := range [...]string{"$ref", "$dynamicRef"} {
			s, _ := v[k].(string)
			_, fragment, _ := strings.Cut(s, "#")
			tokens := strings.Split(fragment, "/")
			usual := len(tokens) == 3 && (tokens[1] == "definitions" || tokens[1] == "$defs" && !draft07)
			if len(tokens) > 1 && !usual {
				into[s] = true
			}
		}
		for _, sub := range v {
			oddRefs(sub, draft07, into)
		}
	case []any:
		for _, sub := range v {
			oddRefs(sub, draft07, into)
		}
	}
	return into
}

// checkDialect looks at $schema of the document itself.
func checkDialect(doc any) error {
	switch doc.(type) {
	case map[string]any, bool:
	default:
		return errors.New("a schema is an object or a boolean")
	}
	m, _ := doc.(map[string]any)
	v, ok := m["$schema"]
	if !ok {
		return nil
	}
	s, _ := v.(string)
	switch strings.TrimSuffix(s, "#") {
	case Draft07, Draft202012:
		return nil
	}
	return fmt.Errorf("$schema %q is not taken; use %q or %q", s, Draft07+"#", Draft202012)
}

// countAnchors counts every $dynamicAnchor, also where it is no keyword: too
// many is the safe side.
func countAnchors(v any, into map[string]int) {
	switch v := v.(type) {
	case map[string]any:
		if s, ok := v["$dynamicAnchor"].(string); ok {
			into[s]++
		}
		for _, sub := range v {
			countAnchors(sub, into)
		}
	case []any:
		for _, sub := range v {
			countAnchors(sub, into)
		}
	}
}

// checkPlan refuses what p reaches, all faults joined.
func checkPlan(p *plan, r *schema.Registration) error {
	nodes := p.reach()
	var faults []error
	if len(nodes) > r.Nodes {
		faults = append(faults, fmt.Errorf("%d schema nodes are reached, at most %d", len(nodes), r.Nodes))
	}
	for _, q := range nodes {
		if len(faults) >= maxFaults {
			return errors.Join(append(faults, errors.New("and more"))...)
		}
		faults = append(faults, q.faults...)
		switch c := q.inPlaceCost(); {
		case c == costCycle:
			faults = append(faults, fmt.Errorf("at %q: the node reaches itself without consuming a level of the payload", q.at))
		case c > r.Expanded:
			faults = append(faults, fmt.Errorf("at %q: one value may cost over %d node visits (references expanded), at most %d", q.at, r.Expanded, r.Expanded))
		}
	}
	return errors.Join(faults...)
}

// denyLoader refuses every reference that leaves the document: no file, no
// network, no registry.
type denyLoader struct{}

// Load implements the library's URLLoader.
func (denyLoader) Load(string) (any, error) {
	return nil, errors.New("references must stay inside the document")
}

// libraryFormat gives our check to the library, so that what it validates (the
// document against its metaschema) is judged by the same code.
func libraryFormat(name string, check formatCheck) *lib.Format {
	return &lib.Format{Name: name, Validate: func(v any) error {
		if s, ok := v.(string); ok && !check([]byte(s)) {
			return fmt.Errorf("not a valid %s", name)
		}
		return nil
	}}
}

// libraryError cuts the document's invented URL out of the library's message.
func libraryError(err error) error {
	s := err.Error()
	if len(s) > 2*maxLibraryError { // before the search below, which copies
		s = cut(s, 2*maxLibraryError)
	}
	for {
		i := strings.Index(s, "https://schema.invalid/")
		if i < 0 {
			return errors.New(cut(s, maxLibraryError))
		}
		end := i + len("https://schema.invalid/")
		for end < len(s) && isHex(s[end]) {
			end++
		}
		s = s[:i] + s[end:]
	}
}

package jsonschema

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/url"
	"slices"
	"strings"

	lib "github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/signetbus/signet/schema"
)

// planner turns the library's compiled nodes of one document into plans. It is
// used under the document's lock.
type planner struct {
	base    string // URL of the document, without fragment
	doc     any    // the decoded document
	limits  *schema.Limits
	anchors map[string]int // how often each $dynamicAnchor is declared
	plans   map[*lib.Schema]*plan
}

// place returns the JSON pointer of s and whether it stands in the document
// itself (the other possibility is a bundled metaschema).
func (pl *planner) place(s *lib.Schema) (pointer string, local bool) {
	u, fragment, _ := strings.Cut(s.Location, "#")
	if p, err := url.PathUnescape(fragment); err == nil {
		fragment = p
	}
	return fragment, u == pl.base
}

// source returns the JSON object that s was compiled from; nil for a boolean
// schema and for a metaschema.
func (pl *planner) source(s *lib.Schema) map[string]any {
	pointer, local := pl.place(s)
	if !local {
		return nil
	}
	v := pl.doc
	for tok := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		if pointer == "" {
			break
		}
		tok = strings.ReplaceAll(strings.ReplaceAll(tok, "~1", "/"), "~0", "~")
		switch c := v.(type) {
		case map[string]any:
			v = c[tok]
		case []any:
			i := 0
			if _, err := fmt.Sscanf(tok, "%d", &i); err != nil || i < 0 || i >= len(c) {
				return nil
			}
			v = c[i]
		default:
			return nil
		}
	}
	m, _ := v.(map[string]any)
	return m
}

func (p *plan) refuse(format string, args ...any) {
	p.faults = append(p.faults, fmt.Errorf("at %q: "+format, append([]any{p.at}, args...)...))
}

func (pl *planner) list(in []*lib.Schema) []*plan {
	if len(in) == 0 {
		return nil
	}
	out := make([]*plan, len(in))
	for i, s := range in {
		out[i] = pl.plan(s)
	}
	return out
}

// plan returns the plan of s, nil for nil.
func (pl *planner) plan(s *lib.Schema) *plan {
	if s == nil {
		return nil
	}
	if p := pl.plans[s]; p != nil {
		return p
	}
	p := &plan{}
	pl.plans[s] = p // before the children: schemas may be recursive
	p.at, _ = pl.place(s)
	if s.Bool != nil {
		p.never = !*s.Bool
		return p
	}
	if s.DraftVersion != 7 && s.DraftVersion != 2020 {
		p.refuse("dialect of draft %d; only draft-07 and 2020-12 are taken", s.DraftVersion)
		return p
	}
	if s.Ref != nil {
		p.refs = append(p.refs, pl.plan(s.Ref))
		if s.DraftVersion == 7 { // draft-07: siblings of $ref mean nothing
			return p
		}
	}
	src := pl.source(s)
	pl.checkSource(p, s, src)
	pl.dynamic(p, s)
	pl.values(p, s)
	pl.object(p, s)
	pl.array(p, s)
	pl.mix(p, s)
	return p
}

// checkSource refuses what the library would read in silence in a way of its own.
func (pl *planner) checkSource(p *plan, s *lib.Schema, src map[string]any) {
	if d, ok := src["$schema"].(string); ok {
		d = strings.TrimSuffix(d, "#")
		if !(d == Draft07 && s.DraftVersion == 7) && !(d == Draft202012 && s.DraftVersion == 2020) {
			p.refuse("$schema %q names another dialect than the one in force here", d)
		}
	}
	if f, ok := src["format"].(string); ok && formatChecks[f] == nil {
		p.refuse("unknown format %q; asserted are %s", f, strings.Join(Formats(), ", "))
	}
	for _, k := range []string{
		"minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "minContains", "maxContains",
	} {
		n, ok := src[k].(json.Number)
		if !ok {
			continue
		}
		if f, err := n.Float64(); err != nil || f > math.MaxInt32 {
			p.refuse("%s over %d", k, math.MaxInt32)
		}
	}
	for _, k := range []string{"allOf", "anyOf", "oneOf"} {
		if b, ok := src[k].([]any); ok && len(b) > pl.limits.Registration.Branches {
			p.refuse("%s with %d branches, at most %d", k, len(b), pl.limits.Registration.Branches)
		}
	}
}

// dynamic resolves $dynamicRef where the dynamic scope cannot matter.
func (pl *planner) dynamic(p *plan, s *lib.Schema) {
	if s.RecursiveRef != nil {
		p.refuse("$recursiveRef is not supported")
	}
	d := s.DynamicRef
	if d == nil {
		return
	}
	_, local := pl.place(d.Ref)
	if d.Anchor != "" && d.Ref.DynamicAnchor == d.Anchor && (!local || pl.anchors[d.Anchor] > 1) {
		p.refuse("$dynamicRef %q could mean more than one place", d.Anchor)
		return
	}
	p.refs = append(p.refs, pl.plan(d.Ref))
}

func (pl *planner) values(p *plan, s *lib.Schema) {
	if s.Types != nil {
		for i, name := range typeNames {
			if slices.Contains(s.Types.ToStrings(), name) {
				p.types |= 1 << i
			}
		}
	}
	if s.Enum != nil {
		p.enum = pl.choices(p, s.Enum.Values)
	}
	if s.Const != nil {
		p.konst = pl.choices(p, []any{*s.Const})
	}
	if s.Format != nil {
		if check := formatChecks[s.Format.Name]; check != nil {
			p.format = &namedFormat{name: s.Format.Name, check: check}
			switch s.Format.Name {
			case "regex":
				p.format.cost = regexCost
			case "hostname", "email":
				p.format.cost = labelCost
			}
		}
	}
	if s.MinLength != nil || s.MaxLength != nil || s.Pattern != nil {
		p.str = &stringRules{min: orElse(s.MinLength, 0), max: orElse(s.MaxLength, math.MaxInt)}
		if re, ok := s.Pattern.(*pattern); ok {
			p.str.pattern = re
		}
	}
	if s.Minimum != nil || s.Maximum != nil || s.ExclusiveMinimum != nil || s.ExclusiveMaximum != nil || s.MultipleOf != nil {
		p.num = &numberRules{multiple: newDecimal(s.MultipleOf)}
		for _, b := range []bound{
			{ruleMinimum, newDecimal(s.Minimum), 0, 1},
			{ruleMaximum, newDecimal(s.Maximum), -1, 0},
			{ruleExclusiveMinimum, newDecimal(s.ExclusiveMinimum), 1, 1},
			{ruleExclusiveMaximum, newDecimal(s.ExclusiveMaximum), -1, -1},
		} {
			if b.limit != nil {
				p.num.bounds = append(p.num.bounds, b)
			}
		}
	}
}

func (pl *planner) object(p *plan, s *lib.Schema) {
	o := &objectRules{
		min: orElse(s.MinProperties, 0), max: orElse(s.MaxProperties, math.MaxInt),
		props: map[string]property{}, required: slices.Compact(slices.Sorted(slices.Values(s.Required))),
		names: pl.plan(s.PropertyNames), uneval: pl.plan(s.UnevaluatedProperties),
	}
	for name, sub := range s.Properties {
		o.props[name] = property{plan: pl.plan(sub)}
	}
	for _, name := range o.required {
		prop := o.props[name]
		prop.required = true
		o.props[name] = prop
	}
	if len(o.props) <= fewProperties {
		for _, name := range slices.Sorted(maps.Keys(o.props)) {
			o.few = append(o.few, namedProperty{name, o.props[name]})
		}
	}
	for re, sub := range s.PatternProperties {
		o.patterns = append(o.patterns, patternRule{re.(*pattern), pl.plan(sub)})
	}
	slices.SortFunc(o.patterns, func(a, b patternRule) int { return strings.Compare(a.pattern.source, b.pattern.source) })
	if len(o.patterns) > pl.limits.Registration.Branches {
		p.refuse("patternProperties with %d patterns, at most %d", len(o.patterns), pl.limits.Registration.Branches)
	}
	o.additional = pl.orBool(s.AdditionalProperties, p.at+"/additionalProperties")
	for _, name := range slices.Sorted(maps.Keys(s.Dependencies)) {
		d := dependency{name: name, rule: "dependencies"}
		switch v := s.Dependencies[name].(type) {
		case []string:
			d.required = v
		case *lib.Schema:
			d.plan = pl.plan(v)
		}
		o.dependent = append(o.dependent, d)
	}
	for _, name := range slices.Sorted(maps.Keys(s.DependentRequired)) {
		o.dependent = append(o.dependent, dependency{name: name, rule: "dependentRequired", required: s.DependentRequired[name]})
	}
	for _, name := range slices.Sorted(maps.Keys(s.DependentSchemas)) {
		o.dependent = append(o.dependent, dependency{name: name, rule: "dependentSchemas", plan: pl.plan(s.DependentSchemas[name])})
	}
	p.uneval = p.uneval || o.uneval != nil
	if len(o.props)+len(o.patterns)+len(o.dependent) > 0 || s.MinProperties != nil || s.MaxProperties != nil ||
		o.additional != nil || o.names != nil || o.uneval != nil {
		p.obj = o
	}
}

// orBool plans a keyword that the library gives as nil, bool or schema. true is
// kept as a plan: it marks what it covers as evaluated.
func (pl *planner) orBool(v any, at string) *plan {
	switch v := v.(type) {
	case bool:
		return &plan{at: at, never: !v}
	case *lib.Schema:
		return pl.plan(v)
	}
	return nil
}

func (pl *planner) array(p *plan, s *lib.Schema) {
	a := &arrayRules{
		min: orElse(s.MinItems, 0), max: orElse(s.MaxItems, math.MaxInt), unique: s.UniqueItems,
		prefix: pl.list(s.PrefixItems), items: pl.plan(s.Items2020), itemsRule: "items",
		contains: pl.plan(s.Contains), marks: s.DraftVersion >= 2020,
		minContains: orElse(s.MinContains, 1), maxContains: orElse(s.MaxContains, math.MaxInt),
		uneval: pl.plan(s.UnevaluatedItems),
	}
	switch items := s.Items.(type) {
	case *lib.Schema:
		a.items = pl.plan(items)
	case []*lib.Schema:
		a.prefix = pl.list(items)
		a.items, a.itemsRule = pl.orBool(s.AdditionalItems, p.at+"/additionalItems"), "additionalItems"
	}
	p.uneval = p.uneval || a.uneval != nil
	if s.MinItems != nil || s.MaxItems != nil || a.unique || len(a.prefix) > 0 || a.items != nil ||
		a.contains != nil || a.uneval != nil {
		p.arr = a
	}
}

func (pl *planner) mix(p *plan, s *lib.Schema) {
	if len(s.AllOf)+len(s.AnyOf)+len(s.OneOf) == 0 && s.Not == nil && s.If == nil {
		return
	}
	p.mix = &combinators{
		all: pl.list(s.AllOf), any: pl.list(s.AnyOf), one: pl.list(s.OneOf), not: pl.plan(s.Not),
		when: pl.plan(s.If), then: pl.plan(s.Then), els: pl.plan(s.Else),
	}
}

// choices keeps the values of enum or const as a parsed text of their own.
func (pl *planner) choices(p *plan, values []any) *choices {
	text, err := json.Marshal(values)
	if err != nil {
		p.refuse("enum or const: %v", err)
		return nil
	}
	limits := textLimits(pl.limits)
	limits.Payload = math.MaxInt32 // escaping may have made it longer than the document
	limits.StringBytes = math.MaxInt32
	d := new(document) // not pooled: it lives as long as the plan
	if err := d.parse(text, &limits); err != nil {
		p.refuse("enum or const: %v", err)
		return nil
	}
	c := &choices{strings: map[string]struct{}{}, values: d}
	i := 1
	for range values {
		if d.values[i].kind == kindString {
			c.strings[string(d.text(i))] = struct{}{}
		} else {
			c.others = append(c.others, i)
		}
		i = int(d.values[i].next)
	}
	var want bytes.Buffer
	if json.Compact(&want, text) == nil {
		c.want = cut(strings.TrimSuffix(strings.TrimPrefix(want.String(), "["), "]"), maxWantBytes)
	}
	return c
}

func orElse(v *int, other int) int {
	if v == nil {
		return other
	}
	return *v
}

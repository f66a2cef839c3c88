package jsonschema

import (
	"fmt"
	"regexp"
	"regexp/syntax"
)

// pattern is one compiled regular expression: Go RE2, linear in the text.
type pattern struct {
	source string
	re     *regexp.Regexp
	simple []segment // when set, decides instead of re
	size   int       // instructions
	steps  int       // fuel for 16 bytes of text
}

// String and MatchString make *pattern a Regexp of the library.
func (p *pattern) String() string { return p.source }

// MatchString reports whether s contains a match.
func (p *pattern) MatchString(s string) bool { return p.re.MatchString(s) }

func (p *pattern) match(b []byte) bool {
	if p.simple != nil {
		return matchSegments(p.simple, b)
	}
	return p.re.Match(b)
}

// cost is the fuel for a text of n bytes: a pattern of k instructions may look
// at each of them for each byte, at about half a step each.
func (p *pattern) cost(n int) int { return n * p.steps / 16 }

// compilePattern compiles source, or says why this broker does not take it.
// ECMA-262 constructs that RE2 lacks (look-around, back-references) are refused
// by name.
func compilePattern(source string, maxBytes, maxSize int) (*pattern, error) {
	if len(source) > maxBytes {
		return nil, fmt.Errorf("pattern of %d bytes, at most %d", len(source), maxBytes)
	}
	parsed, err := syntax.Parse(source, syntax.Perl)
	if err != nil {
		return nil, fmt.Errorf("pattern is not RE2: %w", err)
	}
	prog, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return nil, fmt.Errorf("pattern is not RE2: %w", err)
	}
	if len(prog.Inst) > maxSize {
		return nil, fmt.Errorf("pattern compiles to %d instructions, at most %d are left for it", len(prog.Inst), maxSize)
	}
	re, err := regexp.Compile(source)
	if err != nil {
		return nil, fmt.Errorf("pattern is not RE2: %w", err)
	}
	p := &pattern{source: source, re: re, size: len(prog.Inst), steps: 8 * len(prog.Inst)}
	if p.simple = segments(parsed); p.simple != nil {
		p.steps = 4
	}
	return p, nil
}

// segment is a run of min to max bytes of an ASCII set.
type segment struct {
	set      [2]uint64
	min, max int
}

func (s *segment) has(c byte) bool {
	return c < 0x80 && s.set[c>>6]&(1<<(c&63)) != 0
}

const unbounded = 1 << 30

// segments turns ^(class){m,n}...$ into segments, if each can be matched
// greedily: a segment of varying length must share no byte with what may follow
// it. It returns nil for every other pattern.
func segments(re *syntax.Regexp) []segment {
	if re.Op != syntax.OpConcat || len(re.Sub) < 3 {
		return nil
	}
	subs := re.Sub
	if subs[0].Op != syntax.OpBeginText || subs[len(subs)-1].Op != syntax.OpEndText {
		return nil
	}
	var out []segment
	for _, sub := range subs[1 : len(subs)-1] {
		low, high, inner := 1, 1, sub
		switch sub.Op {
		case syntax.OpRepeat:
			low, high, inner = sub.Min, sub.Max, sub.Sub[0]
			if high < 0 {
				high = unbounded
			}
		case syntax.OpPlus:
			high, inner = unbounded, sub.Sub[0]
		case syntax.OpStar:
			low, high, inner = 0, unbounded, sub.Sub[0]
		case syntax.OpQuest:
			low, inner = 0, sub.Sub[0]
		}
		if sub != inner && sub.Flags&syntax.NonGreedy != 0 {
			return nil
		}
		add := atomSegments(inner)
		if add == nil || len(add) > 1 && (low != 1 || high != 1) {
			return nil
		}
		for i := range add {
			add[i].min, add[i].max = low, high
		}
		out = append(out, add...)
	}
	for i := range out {
		if !greedySafe(out, i) {
			return nil
		}
	}
	return out
}

// atomSegments returns one segment for a class and one per rune for a literal.
func atomSegments(re *syntax.Regexp) []segment {
	if re.Flags&syntax.FoldCase != 0 && re.Op == syntax.OpLiteral {
		return nil
	}
	var out []segment
	switch re.Op {
	case syntax.OpCharClass:
		var s segment
		for i := 0; i < len(re.Rune); i += 2 {
			if re.Rune[i+1] >= 0x80 {
				return nil
			}
			for c := re.Rune[i]; c <= re.Rune[i+1]; c++ {
				s.set[c>>6] |= 1 << (c & 63)
			}
		}
		out = append(out, s)
	case syntax.OpLiteral:
		for _, c := range re.Rune {
			if c >= 0x80 {
				return nil
			}
			var s segment
			s.set[c>>6] |= 1 << (c & 63)
			out = append(out, s)
		}
	}
	return out
}

func greedySafe(out []segment, i int) bool {
	if out[i].min == out[i].max {
		return true
	}
	for k := i + 1; k < len(out); k++ {
		if out[i].set[0]&out[k].set[0] != 0 || out[i].set[1]&out[k].set[1] != 0 {
			return false
		}
		if out[k].min > 0 {
			return true
		}
	}
	return true
}

func matchSegments(segments []segment, b []byte) bool {
	i := 0
	for k := range segments {
		s := &segments[k]
		n := 0
		for n < s.max && i < len(b) && s.has(b[i]) {
			n++
			i++
		}
		if n < s.min {
			return false
		}
	}
	return i == len(b)
}

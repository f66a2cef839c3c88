package policy

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Limits on a policy file, checked before the YAML parser, which recurses, sees it.
const (
	MaxFileBytes = 1 << 20
	maxDepth     = 16 // of flow collections and of "- - -" on one line; the format needs 4
	maxTokens    = 200_000
)

// parseYAML returns the documents of src. It refuses anchors, aliases, merge keys,
// tags, directives and explicit keys: with them a small file can mean a huge or a
// misleading one, and no policy needs them.
func parseYAML(name string, src []byte, f *faults) (docs []*ast.DocumentNode) {
	whole := Position{File: name}
	defer func() {
		// The parser is not ours and reads what an administrator pasted: a panic in
		// it is a file that cannot be read, not the end of the broker.
		if p := recover(); p != nil {
			docs = nil
			f.add(whole, "not YAML: the parser gave up on it")
		}
	}()
	switch {
	case len(src) > MaxFileBytes:
		f.add(whole, "policy file over %d bytes", MaxFileBytes)
		return nil
	case !utf8.Valid(src):
		f.add(whole, "policy file is not UTF-8")
		return nil
	case strings.ContainsFunc(string(src), badRune):
		f.add(firstBadRune(name, src), "control character, byte order mark or invisible direction mark")
		return nil
	}
	tokens := lexer.Tokenize(string(src))
	if !checkTokens(name, tokens, f) {
		return nil
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		at, msg := whole, err.Error()
		var syntax *yaml.SyntaxError
		if errors.As(err, &syntax) {
			msg = syntax.Message
			if syntax.Token != nil {
				at = position(name, syntax.Token)
			}
		}
		f.add(at, "not YAML: %s%s", msg, quoteTemplates(src, at.Line))
		return nil
	}
	return file.Docs
}

// badRune: what a person reading the file would not see.
func badRune(r rune) bool {
	return r < ' ' && r != '\n' && r != '\r' && r != '\t' || r >= 0x7f && r < 0xa0 ||
		r == 0xfeff || r >= 0x200b && r <= 0x200f || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069
}

func firstBadRune(name string, src []byte) Position {
	text := string(src)
	before := text[:strings.IndexFunc(text, badRune)]
	line := strings.Count(before, "\n") + 1
	return Position{File: name, Line: line, Column: utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:]) + 1}
}

func checkTokens(name string, tokens token.Tokens, f *faults) bool {
	if len(tokens) > maxTokens {
		f.add(Position{File: name}, "policy file over %d YAML tokens", maxTokens)
		return false
	}
	ok := true
	refuse := func(t *token.Token, what string) {
		f.add(position(name, t), "%s", what)
		ok = false
	}
	flow, entries, line := 0, 0, 0
	for _, t := range tokens {
		switch t.Type {
		case token.AnchorType, token.AliasType, token.MergeKeyType:
			refuse(t, "anchors, aliases and merge keys are not allowed (quote a value that starts with & or *)")
		case token.TagType:
			refuse(t, "YAML tags are not allowed (quote a value that starts with !)")
		case token.DirectiveType:
			refuse(t, "YAML directives are not allowed")
		case token.MappingKeyType:
			refuse(t, "explicit keys (?) are not allowed")
		case token.InvalidType:
			refuse(t, "not YAML: "+t.Error)
		case token.SequenceStartType, token.MappingStartType:
			flow++
		case token.SequenceEndType, token.MappingEndType:
			flow--
		case token.SequenceEntryType:
			if t.Position.Line != line {
				line, entries = t.Position.Line, 0
			}
			entries++
		}
		if flow > maxDepth || entries > maxDepth || t.Position.IndentNum > 8*maxDepth {
			refuse(t, "nested too deep")
		}
		if !ok && len(f.list) > maxFaults {
			return false
		}
	}
	return ok
}

func position(name string, t *token.Token) Position {
	if t == nil || t.Position == nil {
		return Position{File: name}
	}
	return Position{File: name, Line: t.Position.Line, Column: t.Position.Column}
}

// reader turns nodes of one file into values; what does not fit becomes a fault
// and the zero value.
type reader struct {
	file   string
	faults *faults
}

func (r *reader) at(n ast.Node) Position {
	switch n := n.(type) {
	case nil:
		return Position{File: r.file}
	case *ast.MappingNode:
		if len(n.Values) > 0 && !n.IsFlowStyle {
			return r.at(n.Values[0].Key)
		}
		return position(r.file, n.Start)
	case *ast.MappingValueNode:
		return r.at(n.Key)
	}
	return position(r.file, n.GetToken())
}

func (r *reader) fault(n ast.Node, format string, args ...any) {
	r.faults.add(r.at(n), format, args...)
}

// kind names the type of a node for people.
func kind(n ast.Node) string {
	switch n := n.(type) {
	case nil, *ast.NullNode:
		return "nothing"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.StringNode, *ast.LiteralNode:
		return "a string"
	case *ast.BoolNode:
		return "true or false"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a number"
	default:
		return strings.ToLower(n.Type().String())
	}
}

// fields maps the keys of a mapping to what reads their value.
type fields map[string]func(ast.Node)

// object reads a mapping; what names it in faults ("stream"). Keys that are not in
// fields, are repeated or are not plain strings are faults. It returns the keys seen.
func (r *reader) object(n ast.Node, what string, fs fields) map[string]bool {
	var values []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingNode:
		values = n.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{n}
	default:
		r.fault(n, "%s: a mapping is wanted, not %s", what, kind(n))
		return nil
	}
	seen := make(map[string]bool, len(values))
	first := make(map[string]Position, len(values))
	for _, v := range values {
		key, ok := v.Key.(*ast.StringNode)
		if !ok {
			r.fault(v.Key, "%s: a key must be a plain string", what)
			continue
		}
		if seen[key.Value] {
			r.fault(key, "%s: key %q is repeated, first at %s", what, key.Value, first[key.Value])
			continue
		}
		seen[key.Value], first[key.Value] = true, r.at(key)
		read := fs[key.Value]
		if read == nil {
			r.fault(key, "%s: unknown key %q%s", what, key.Value, suggest(key.Value, slices.Sorted(maps.Keys(fs)), "known keys"))
			continue
		}
		if _, null := v.Value.(*ast.NullNode); null || v.Value == nil {
			r.fault(key, "%s: %s has no value", what, key.Value)
			continue
		}
		read(v.Value)
	}
	return seen
}

// need faults the keys that are missing.
func (r *reader) need(n ast.Node, what string, seen map[string]bool, keys ...string) {
	if seen == nil {
		return
	}
	for _, k := range keys {
		if !seen[k] {
			r.fault(n, "%s: %s is missing", what, k)
		}
	}
}

// list calls each for the elements of a list.
func (r *reader) list(n ast.Node, what string, each func(i int, n ast.Node)) {
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		r.fault(n, "%s: a list is wanted, not %s", what, kind(n))
		return
	}
	for i, v := range seq.Values {
		each(i, v)
	}
}

// named calls each for the entries of a mapping whose keys are names.
func (r *reader) named(n ast.Node, what string, each func(name string, key, value ast.Node)) {
	var values []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingNode:
		values = n.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{n}
	default:
		r.fault(n, "%s: a mapping of names is wanted, not %s", what, kind(n))
		return
	}
	for _, v := range values {
		key, ok := v.Key.(*ast.StringNode)
		if !ok {
			r.fault(v.Key, "%s: a name must be a plain string", what)
			continue
		}
		each(key.Value, key, v.Value)
	}
}

func (r *reader) text(n ast.Node, what string) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	}
	hint := ""
	switch n.(type) {
	case *ast.BoolNode, *ast.IntegerNode, *ast.FloatNode:
		hint = " (put it in quotes)"
	}
	r.fault(n, "%s: a string is wanted, not %s%s", what, kind(n), hint)
	return "", false
}

// scalar is text that also takes a plain number as it is written.
func (r *reader) scalar(n ast.Node, what string) (string, bool) {
	if i, ok := n.(*ast.IntegerNode); ok {
		return i.Token.Value, true
	}
	return r.text(n, what)
}

func (r *reader) bool(n ast.Node, what string) bool {
	if b, ok := n.(*ast.BoolNode); ok {
		return b.Value
	}
	r.fault(n, "%s: true or false is wanted, not %s", what, kind(n))
	return false
}

// number reads a whole number from 1 to high.
func (r *reader) number(n ast.Node, what string, high int) int {
	const low = 1
	if i, ok := n.(*ast.IntegerNode); ok {
		if v, err := parseDigits(i.Token.Value); err == nil && v >= int64(low) && v <= int64(high) {
			return int(v)
		}
	}
	r.fault(n, "%s: a whole number from %d to %d is wanted", what, low, high)
	return low
}

func (r *reader) size(n ast.Node, what string, least ByteSize) ByteSize {
	s, ok := r.scalar(n, what)
	if !ok {
		return least
	}
	size, err := ParseByteSize(s)
	switch {
	case err != nil:
		r.fault(n, "%s: %v", what, err)
	case size < least:
		r.fault(n, "%s: %s is less than the least, %s", what, size, least)
	default:
		return size
	}
	return least
}

// parsed reads a string and hands it to parse.
func parsed[T any](r *reader, n ast.Node, what string, parse func(string) (T, error)) T {
	var zero T
	s, ok := r.text(n, what)
	if !ok {
		return zero
	}
	v, err := parse(s)
	if err != nil {
		r.fault(n, "%s: %v", what, err)
		return zero
	}
	return v
}

// suggest ends a fault about an unknown word with the closest known one or, when
// none is close, with all of them.
func suggest(word string, known []string, all string) string {
	best, distance := "", 3
	for _, k := range known[:min(len(known), 256)] {
		if d := editDistance(word, k); d < distance && d < len(k) {
			best, distance = k, d
		}
	}
	switch {
	case best != "":
		return fmt.Sprintf(", did you mean %q?", best)
	case len(known) == 0 || len(known) > 24:
		return ""
	}
	return fmt.Sprintf("; %s: %s", all, strings.Join(known, ", "))
}

// editDistance is the Levenshtein distance of two short words, without case; long ones are far apart.
func editDistance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	a, b = strings.ToLower(a), strings.ToLower(b)
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}

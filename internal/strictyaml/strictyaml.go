// Package strictyaml decodes YAML into structs and reports every fault at once,
// each with its line and column: unknown keys, repeated keys, wrong types, values
// that a type refuses. Anchors, aliases, tags and merge keys are refused, so that
// what a person reads is what the program reads.
//
// It is stateless and safe for concurrent use. Struct fields are named by their
// `yaml` tag; a field without one cannot be set. Supported kinds: bool, string,
// integers, time.Duration (as "30s"), encoding.TextUnmarshaler, slices, maps with
// string keys, structs and pointers to structs.
package strictyaml

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// MaxBytes is the largest text that Decode reads.
const MaxBytes = 1 << 20

// Fault is one thing wrong at one place.
type Fault struct {
	File         string
	Line, Column int
	Text         string
}

func (f *Fault) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", f.File, f.Line, f.Column, f.Text)
}

// Decode reads src, one YAML document named file in faults, into the struct that
// into points to. Fields that the text does not name keep their value, so
// defaults are set before the call. The error joins every *Fault.
func Decode(file string, src []byte, into any) error {
	if len(src) > MaxBytes {
		return &Fault{File: file, Line: 1, Column: 1, Text: fmt.Sprintf("larger than %d bytes", MaxBytes)}
	}
	// Repeated keys are found by our own walk, so that they do not hide other faults.
	tree, err := parser.ParseBytes(src, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return syntaxFault(file, err)
	}
	d := &decoder{file: file}
	switch {
	case len(tree.Docs) > 1:
		d.fault(tree.Docs[1].Start, "only one YAML document is allowed here")
	case len(tree.Docs) == 1 && tree.Docs[0].Body != nil:
		d.value(tree.Docs[0].Body, reflect.ValueOf(into).Elem(), "")
	}
	return errors.Join(d.faults...)
}

// syntaxFault takes the position out of the parser's text, "[line:column] what",
// and leaves the quoted source behind.
func syntaxFault(file string, err error) *Fault {
	text, _, _ := strings.Cut(strings.TrimSpace(err.Error()), "\n")
	f := &Fault{File: file, Line: 1, Column: 1, Text: text}
	if n, _ := fmt.Sscanf(text, "[%d:%d]", &f.Line, &f.Column); n == 2 {
		_, f.Text, _ = strings.Cut(text, "] ")
	}
	return f
}

type decoder struct {
	file   string
	faults []error
}

func (d *decoder) fault(at *token.Token, format string, args ...any) {
	f := &Fault{File: d.file, Line: 1, Column: 1, Text: fmt.Sprintf(format, args...)}
	if at != nil && at.Position != nil {
		f.Line, f.Column = at.Position.Line, at.Position.Column
	}
	d.faults = append(d.faults, f)
}

var durationType = reflect.TypeFor[time.Duration]()

func (d *decoder) value(n ast.Node, v reflect.Value, path string) {
	switch n.(type) {
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode, *ast.MergeKeyNode:
		d.fault(n.GetToken(), "%s: anchors, aliases, tags and merge keys are not allowed", orRoot(path))
		return
	case *ast.NullNode:
		return // "key:" with nothing behind it leaves the default
	}
	if v.CanAddr() {
		if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
			d.text(n, u, path)
			return
		}
	}
	switch {
	case v.Type() == durationType:
		d.duration(n, v, path)
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.value(n, v.Elem(), path)
	case v.Kind() == reflect.Struct:
		d.structure(n, v, path)
	case v.Kind() == reflect.Slice:
		d.slice(n, v, path)
	case v.Kind() == reflect.Map:
		d.mapping(n, v, path)
	default:
		d.scalar(n, v, path)
	}
}

func orRoot(path string) string {
	if path == "" {
		return "document"
	}
	return path
}

func (d *decoder) entries(n ast.Node, path string) []*ast.MappingValueNode {
	switch n := n.(type) {
	case *ast.MappingNode:
		return n.Values
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}
	}
	d.fault(n.GetToken(), "%s: want a mapping of keys to values", orRoot(path))
	return nil
}

// keys calls each once per distinct key.
func (d *decoder) keys(n ast.Node, path string, each func(key string, at *token.Token, value ast.Node)) {
	seen := map[string]bool{}
	for _, mv := range d.entries(n, path) {
		k, ok := mv.Key.(*ast.StringNode)
		if !ok {
			d.fault(mv.Key.GetToken(), "%s: keys must be plain text", orRoot(path))
			continue
		}
		if seen[k.Value] {
			d.fault(k.GetToken(), "%s: key %q stands twice", orRoot(path), k.Value)
			continue
		}
		seen[k.Value] = true
		each(k.Value, k.GetToken(), mv.Value)
	}
}

func (d *decoder) structure(n ast.Node, v reflect.Value, path string) {
	fields := map[string]reflect.Value{}
	var names []string
	for i := range v.NumField() {
		tag, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
		if tag != "" && tag != "-" {
			fields[tag] = v.Field(i)
			names = append(names, tag)
		}
	}
	d.keys(n, path, func(key string, at *token.Token, value ast.Node) {
		f, ok := fields[key]
		if !ok {
			d.fault(at, "unknown key %q in %s (known: %s)", key, orRoot(path), strings.Join(names, ", "))
			return
		}
		d.value(value, f, join(path, key))
	})
}

func (d *decoder) mapping(n ast.Node, v reflect.Value, path string) {
	out := reflect.MakeMap(v.Type())
	d.keys(n, path, func(key string, _ *token.Token, value ast.Node) {
		e := reflect.New(v.Type().Elem()).Elem()
		d.value(value, e, join(path, key))
		out.SetMapIndex(reflect.ValueOf(key), e)
	})
	v.Set(out)
}

func (d *decoder) slice(n ast.Node, v reflect.Value, path string) {
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		d.fault(n.GetToken(), "%s: want a list", orRoot(path))
		return
	}
	out := reflect.MakeSlice(v.Type(), len(seq.Values), len(seq.Values))
	for i, item := range seq.Values {
		d.value(item, out.Index(i), fmt.Sprintf("%s[%d]", path, i))
	}
	v.Set(out)
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// plain returns the text of a scalar as it was written.
func plain(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	}
	return "", false
}

func (d *decoder) text(n ast.Node, u encoding.TextUnmarshaler, path string) {
	s, ok := plain(n)
	if !ok {
		d.fault(n.GetToken(), "%s: want one value", orRoot(path))
		return
	}
	if err := u.UnmarshalText([]byte(s)); err != nil {
		d.fault(n.GetToken(), "%s: %v", orRoot(path), err)
	}
}

func (d *decoder) duration(n ast.Node, v reflect.Value, path string) {
	s, _ := plain(n)
	dur, err := time.ParseDuration(s)
	if err != nil {
		d.fault(n.GetToken(), "%s: want a duration such as 30s or 5m", orRoot(path))
		return
	}
	v.SetInt(int64(dur))
}

func (d *decoder) scalar(n ast.Node, v reflect.Value, path string) {
	switch v.Kind() {
	case reflect.Bool:
		if b, ok := n.(*ast.BoolNode); ok {
			v.SetBool(b.Value)
			return
		}
		d.fault(n.GetToken(), "%s: want true or false", orRoot(path))
	case reflect.String:
		switch n := n.(type) {
		case *ast.StringNode:
			v.SetString(n.Value)
		case *ast.LiteralNode:
			v.SetString(n.Value.Value)
		default:
			d.fault(n.GetToken(), "%s: want text (quote it if it looks like a number)", orRoot(path))
		}
	case reflect.Int, reflect.Int32, reflect.Int64:
		if i, ok := n.(*ast.IntegerNode); ok {
			if x, err := strconv.ParseInt(i.Token.Value, 10, v.Type().Bits()); err == nil {
				v.SetInt(x)
				return
			}
		}
		d.fault(n.GetToken(), "%s: want a whole number", orRoot(path))
	default:
		d.fault(n.GetToken(), "%s: cannot be set", orRoot(path))
	}
}

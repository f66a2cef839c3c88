package dlq

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxWhere bounds the text of one condition in bytes.
const maxWhere = 1024

// ErrWhere: a condition on the payload is malformed.
var ErrWhere = errors.New("dlq: malformed condition on the payload")

// Where is a condition on a payload in JSON: what a JSON pointer (RFC 6901) leads to. The
// zero value is not one; make it with ParseWhere.
type Where struct {
	text   string
	path   []string
	op     string // "" (it is there), "=" or "!="
	want   string // text after op
	scalar bool   // want is also a number, true, false or null in JSON
}

// ParseWhere reads "/pointer" (there is such a value), "/pointer=value" or
// "/pointer!=value". The value is compared with a string as it is, and with a number,
// true, false and null as JSON writes them in the payload; "=" of an object or an array is
// never true, and "!=" is true where there is no such value. The pointer ends at the first =,
// so a name with = in it cannot be asked for.
//
// Errors: ErrWhere.
func ParseWhere(text string) (Where, error) {
	w := Where{text: text}
	pointer, want, found := strings.Cut(text, "=")
	switch {
	case len(text) > maxWhere:
		return w, fmt.Errorf("%w: over %d bytes", ErrWhere, maxWhere)
	case !utf8.ValidString(text):
		return w, fmt.Errorf("%w: not UTF-8", ErrWhere)
	case !strings.HasPrefix(text, "/"):
		return w, fmt.Errorf("%w: %.64q: want a JSON pointer, as in /action=opened", ErrWhere, text)
	}
	if found {
		w.op, w.want = "=", want
		if rest, not := strings.CutSuffix(pointer, "!"); not {
			w.op, pointer = "!=", rest
		}
		switch {
		case want == "true", want == "false", want == "null":
			w.scalar = true
		case want != "" && strings.IndexByte("-0123456789", want[0]) >= 0:
			w.scalar = json.Valid([]byte(want))
		}
	}
	if pointer == "" {
		return w, fmt.Errorf("%w: %.64q: the pointer is empty", ErrWhere, text)
	}
	for token := range strings.SplitSeq(pointer[1:], "/") {
		for i := 0; i < len(token); i++ {
			if token[i] == '~' && (i+1 == len(token) || token[i+1] != '0' && token[i+1] != '1') {
				return w, fmt.Errorf("%w: %.64q: ~ stands for itself as ~0, and / as ~1", ErrWhere, text)
			}
		}
		w.path = append(w.path, strings.ReplaceAll(strings.ReplaceAll(token, "~1", "/"), "~0", "~"))
	}
	return w, nil
}

// String returns the text that ParseWhere has read.
func (w Where) String() string { return w.text }

// whereAll reports whether a payload is JSON and all conditions hold.
func whereAll(all []Where, payload []byte) bool {
	d := json.NewDecoder(bytes.NewReader(payload))
	d.UseNumber()
	var doc any
	if d.Decode(&doc) != nil {
		return false
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return false
	}
	for i := range all {
		if !all[i].holds(doc) {
			return false
		}
	}
	return true
}

func (w *Where) holds(doc any) bool {
	v, there := doc, w.path != nil
	for _, token := range w.path {
		if v, there = child(v, token); !there {
			break
		}
	}
	switch w.op {
	case "=":
		return there && w.equals(v)
	case "!=":
		return !there || !w.equals(v)
	}
	return there
}

func child(v any, token string) (any, bool) {
	switch v := v.(type) {
	case map[string]any:
		c, ok := v[token]
		return c, ok
	case []any:
		i, err := strconv.Atoi(token)
		if err != nil || i < 0 || i >= len(v) || strconv.Itoa(i) != token {
			return nil, false
		}
		return v[i], true
	}
	return nil, false
}

func (w *Where) equals(v any) bool {
	switch v := v.(type) {
	case string:
		return v == w.want
	case json.Number:
		return w.scalar && v.String() == w.want
	case bool:
		return w.scalar && strconv.FormatBool(v) == w.want
	case nil:
		return w.scalar && w.want == "null"
	}
	return false
}

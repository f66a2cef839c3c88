package cloudevent

import (
	"bytes"
	"encoding/base64"
	"slices"
	"unicode/utf8"

	"github.com/signetbus/signet/internal/wire"
)

// FromJSON decodes a structured mode event: e is overwritten and becomes views
// into b and scratch, which is overwritten too (nil is allowed). It reads strictly:
//   - one JSON object and nothing behind it, UTF-8, no lone surrogates, at most
//     MaxJSONDepth deep;
//   - every member name is an attribute name, written without escapes, once. So
//     two members can neither be equal nor differ in letter case only;
//   - specversion is there and is "1.0";
//   - core attributes are strings; extensions are strings, booleans or integers
//     of 32 bits, which become their text; null is an absent attribute, the empty
//     string is refused;
//   - data or data_base64, not both; data_base64 is standard base64 with padding.
//
// Data: of a JSON content type the text of the data member stays byte for byte as
// it is; a data member without a content type is JSON, and datacontenttype is set
// to say so. Of another content type data must be a string, and its value is the
// data. Names repeated inside the data are not looked for: the data is
// opaque here as it is in binary mode, and the schema scanner refuses them.
//
// Missing id, source and type are left empty. Only form is checked, see Validate.
//
// Errors: *JSONError, which is ErrJSON, and where it applies ErrDuplicate,
// ErrVersion, ErrAttribute, ErrTooMany. After an error e must not be used.
func (e *Event) FromJSON(b []byte, scratch *Scratch) error {
	e.Reset()
	d := decoder{scanner: scanner{b: b}, e: e}
	if scratch != nil {
		d.arena = (*scratch)[:0]
	}
	if err := d.event(); err != nil {
		return err
	}
	if err := d.settleData(); err != nil {
		return err
	}
	if scratch != nil {
		*scratch = d.arena
	}
	return nil
}

// decoder is one FromJSON call.
type decoder struct {
	scanner
	e     *Event
	arena []byte

	seen    uint16 // bit per member of the fixed set, see members
	data    []byte // text of the data member
	dataAt  int
	base64  []byte // value of data_base64
	null    [MaxExtensions][]byte
	nullLen int // extensions that were null: absent, but their name is taken
}

// members is the fixed set; the index is the bit in decoder.seen.
var members = [...]string{
	"id", "source", "type", "datacontenttype", "dataschema", "subject", "time",
	memberVersion: "specversion", memberData: "data", memberBase64: "data_base64",
}

const (
	memberVersion = iota + 7
	memberData
	memberBase64
)

// has reports whether a member of the fixed set has been met.
func (d *decoder) has(member int) bool { return d.seen&(1<<member) != 0 }

func (d *decoder) event() error {
	if err := d.expect('{', "object expected"); err != nil {
		return err
	}
	d.space()
	if d.peek() == '}' {
		return d.failCause(d.pos, ErrVersion, "no specversion")
	}
	for {
		if err := d.member(); err != nil {
			return err
		}
		d.space()
		switch d.peek() {
		case ',':
			d.pos++
			continue
		case '}':
			d.pos++
		default:
			return d.fail("comma or closing brace expected")
		}
		break
	}
	d.space()
	if d.pos != len(d.b) {
		return d.fail("bytes behind the event")
	}
	if !d.has(memberVersion) {
		return d.failCause(d.pos, ErrVersion, "no specversion")
	}
	return nil
}

// member takes one name and its value.
func (d *decoder) member() error {
	d.space()
	at := d.pos
	name, escaped, err := d.str()
	if err != nil {
		return err
	}
	if escaped {
		return d.failCause(at, ErrAttribute, "escape in a member name")
	}
	if err := d.expect(':', "colon expected"); err != nil {
		return err
	}
	d.space()
	for i, m := range members {
		if string(name) != m {
			continue
		}
		if d.has(i) {
			return d.failCause(at, ErrDuplicate, "member given twice")
		}
		d.seen |= 1 << i
		return d.fixed(name)
	}
	if checkName(name) != nil {
		return d.failCause(at, ErrAttribute, "member name is not 1 to 20 of a-z and 0-9")
	}
	return d.extension(name, at)
}

// fixed takes the value of a member of the fixed set.
func (d *decoder) fixed(name []byte) (err error) {
	at := d.pos
	switch string(name) {
	case "data":
		if d.has(memberBase64) {
			return d.failCause(at, ErrDuplicate, "data and data_base64")
		}
		d.dataAt = at
		d.data, err = d.value(1)
		return err
	case "data_base64":
		if d.has(memberData) {
			return d.failCause(at, ErrDuplicate, "data and data_base64")
		}
		return d.binary()
	case "specversion":
		v, err := d.text()
		if err == nil && string(v) != specVersion {
			err = d.failCause(at, ErrVersion, "specversion is not 1.0")
		}
		return err
	}
	if d.peek() == 'n' {
		err := d.literal()
		return err
	}
	v, err := d.text()
	if err != nil {
		return err
	}
	if len(v) == 0 {
		return d.failCause(at, ErrAttribute, "empty attribute")
	}
	*d.e.slot(name) = v
	return nil
}

func (d *decoder) extension(name []byte, at int) error {
	i, dup := d.e.find(name)
	for _, n := range d.null[:d.nullLen] {
		dup = dup || bytes.Equal(n, name)
	}
	if dup {
		return d.failCause(at, ErrDuplicate, "member given twice")
	}
	if len(d.e.Ext)+d.nullLen == MaxExtensions {
		return d.failCause(at, ErrTooMany, "too many extension attributes")
	}
	v, err := d.extensionValue()
	if err != nil {
		return err
	}
	if v == nil {
		d.null[d.nullLen] = name
		d.nullLen++
		return nil
	}
	d.e.Ext = slices.Insert(d.e.Ext, i, Attr{Name: name, Value: v})
	return nil
}

// extensionValue takes the value of an extension as text, nil for null.
func (d *decoder) extensionValue() ([]byte, error) {
	at := d.pos
	switch c := d.peek(); c {
	case '"':
		v, err := d.text()
		if err == nil && len(v) == 0 {
			err = d.failCause(at, ErrAttribute, "empty attribute")
		}
		return v, err
	case 't', 'f', 'n':
		if err := d.literal(); err != nil || c == 'n' {
			return nil, err
		}
		return d.b[at:d.pos:d.pos], nil
	case '{', '[':
		return nil, d.failCause(at, ErrAttribute, "an attribute is a string, a boolean or an integer")
	}
	v, integer, err := d.number()
	if err != nil {
		return nil, err
	}
	if !integer || !int32Text(v) {
		return nil, d.failCause(at, ErrAttribute, "not an integer of 32 bits")
	}
	return v, nil
}

// int32Text reports whether the JSON integer v is in the range of the CloudEvents
// Integer, and written the only way.
func int32Text(v []byte) bool {
	limit := int64(1<<31 - 1)
	digits := v
	if v[0] == '-' {
		limit++
		digits = v[1:]
	}
	if len(digits) > 10 || v[0] == '-' && digits[0] == '0' {
		return false
	}
	n := int64(0)
	for _, c := range digits {
		n = n*10 + int64(c-'0')
	}
	return n <= limit
}

// text takes a string and returns its value, a view into the text or the arena.
func (d *decoder) text() ([]byte, error) {
	raw, escaped, err := d.str()
	if err != nil || !escaped {
		return raw, err
	}
	return d.unescaped(raw), nil
}

func (d *decoder) unescaped(raw []byte) []byte {
	start := len(d.arena)
	d.arena = unescape(d.arena, raw)
	return d.arena[start:len(d.arena):len(d.arena)]
}

// strictBase64 refuses bits behind the end; binary refuses the line ends that
// every decoder of the base64 package skips.
var strictBase64 = base64.StdEncoding.Strict()

// binary takes the value of data_base64.
func (d *decoder) binary() error {
	at := d.pos
	v, err := d.text()
	if err != nil {
		return err
	}
	if bytes.ContainsAny(v, "\r\n") {
		return d.failCause(at, nil, "line end in data_base64")
	}
	start, size := len(d.arena), strictBase64.DecodedLen(len(v))
	d.arena = slices.Grow(d.arena, size)[:start+size]
	n, err := strictBase64.Decode(d.arena[start:], v)
	if err != nil {
		return d.failCause(at, nil, "data_base64 is not base64")
	}
	d.arena = d.arena[:start+n]
	d.base64 = d.arena[start : start+n : start+n]
	return nil
}

// impliedContentType is what a data member without a datacontenttype is (JSON
// format 1.0.2, section 2.2). It must not stay implied: other bindings read an
// absent content type as unknown.
var impliedContentType = []byte("application/json")

// settleData turns the data member into data. It waits for the end of the event
// because the content type may come last.
func (d *decoder) settleData() error {
	if d.data == nil {
		d.e.Data = d.base64
		return nil
	}
	if len(d.e.ContentType) == 0 {
		d.e.ContentType = impliedContentType
	}
	if JSONContent(d.e.ContentType) {
		d.e.Data = d.data
		return nil
	}
	if d.data[0] != '"' {
		return d.failCause(d.dataAt, nil, "data of a content type that is not JSON must be a string")
	}
	raw := d.data[1 : len(d.data)-1]
	if bytes.IndexByte(raw, '\\') >= 0 {
		raw = d.unescaped(raw)
	}
	d.e.Data = raw
	return nil
}

// JSONContent reports whether a datacontenttype means JSON: application/json,
// text/json, any +json subtype, or none at all (which CloudEvents reads as
// application/json).
func JSONContent(contentType []byte) bool {
	media, _, _ := bytes.Cut(contentType, []byte{';'})
	media = bytes.TrimRight(media, " \t")
	if len(media) == 0 {
		return len(contentType) == 0
	}
	_, sub, ok := bytes.Cut(media, []byte{'/'})
	if !ok {
		return false
	}
	const suffix = "+json"
	return wire.EqualFold(sub, "json") || len(sub) > len(suffix) && wire.EqualFold(sub[len(sub)-len(suffix):], suffix)
}

// AppendJSON appends e as a structured mode event: compact, specversion first,
// then the core attributes that are there, the extensions in order, and the data,
// always as data_base64, because a program that prints JSON again changes the
// bytes of a data member and so breaks signatures. Empty data is left out. Bytes
// that are not UTF-8, which Validate refuses, become U+FFFD. It allocates only to
// grow dst.
func AppendJSON(dst []byte, e *Event) []byte {
	dst = append(dst, `{"specversion":"1.0"`...)
	dst = appendMember(dst, `,"id":`, e.ID)
	dst = appendMember(dst, `,"source":`, e.Source)
	dst = appendMember(dst, `,"type":`, e.Type)
	dst = appendMember(dst, `,"datacontenttype":`, e.ContentType)
	dst = appendMember(dst, `,"dataschema":`, e.DataSchema)
	dst = appendMember(dst, `,"subject":`, e.Subject)
	dst = appendMember(dst, `,"time":`, e.Time)
	for i := range e.Ext {
		if len(e.Ext[i].Value) == 0 {
			continue
		}
		dst = append(dst, `,"`...)
		dst = append(dst, e.Ext[i].Name...)
		dst = appendMember(dst, `":`, e.Ext[i].Value)
	}
	if len(e.Data) > 0 {
		dst = append(dst, `,"data_base64":"`...)
		dst = base64.StdEncoding.AppendEncode(dst, e.Data)
		dst = append(dst, '"')
	}
	return append(dst, '}')
}

func appendMember(dst []byte, lead string, value []byte) []byte {
	if len(value) == 0 {
		return dst
	}
	dst = append(dst, lead...)
	return appendString(dst, value)
}

func appendString(dst, v []byte) []byte {
	const digits = "0123456789abcdef"
	dst = append(dst, '"')
	for i := 0; i < len(v); {
		switch c := v[i]; {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
			i++
		case c < ' ' || c == 0x7f:
			dst = append(dst, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
			i++
		case c < utf8.RuneSelf:
			dst = append(dst, c)
			i++
		default:
			r, n := utf8.DecodeRune(v[i:])
			dst = utf8.AppendRune(dst, r) // RuneError is U+FFFD
			i += n
		}
	}
	return append(dst, '"')
}

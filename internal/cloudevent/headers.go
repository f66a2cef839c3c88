package cloudevent

import (
	"bytes"
	"slices"

	"github.com/signetbus/signet/internal/wire"
)

// mediaStructured is the media type prefix that selects structured mode.
const mediaStructured = "application/cloudevents"

// IsStructured reports whether the content type of a message selects structured
// JSON mode. Any other format, a batch, another charset, two content types and
// ce- headers beside a structured body are refused: a reader could take such a
// message for something else than the broker did.
//
// Errors: ErrMode, ErrDuplicate.
func IsStructured(h *wire.Headers) (bool, error) {
	ct, err := contentType(h)
	if err != nil || !structuredMedia(ct) {
		return false, err
	}
	media, params, more := bytes.Cut(ct, []byte{';'})
	if !wire.EqualFold(bytes.TrimRight(media, " \t"), wire.StructuredContentType) {
		return false, attrError(ErrMode, []byte("content-type"), "only application/cloudevents+json is read")
	}
	if more {
		params = bytes.Trim(params, " \t")
		if !wire.EqualFold(params, "charset=utf-8") && !wire.EqualFold(params, `charset="utf-8"`) {
			return false, attrError(ErrMode, []byte("content-type"), "the only parameter allowed is charset=utf-8")
		}
	}
	for _, l := range h.All() {
		if wire.HasPrefixFold(l.Name, wire.PrefixAttribute) {
			return false, attrError(ErrMode, l.Name, "ce- header beside a structured event")
		}
	}
	return true, nil
}

func structuredMedia(ct []byte) bool { return wire.HasPrefixFold(ct, mediaStructured) }

// contentType returns the value of the only content-type header, in any letter
// case, or nil.
func contentType(h *wire.Headers) ([]byte, error) {
	var ct []byte
	for _, l := range h.All() {
		if len(l.Name) == len(wire.HeaderContentType) && wire.EqualFold(l.Name, wire.HeaderContentType) {
			if ct != nil {
				return nil, attrError(ErrDuplicate, l.Name, "two content types")
			}
			ct = l.Value
		}
	}
	return ct, nil
}

// FromHeaders decodes a binary mode message: e is overwritten and becomes views
// into h, data and scratch, which is overwritten too (nil is allowed and costs
// memory). Each attribute is one header "ce-<name>" in exactly this case, once;
// the value is percent-decoded exactly once. datacontenttype comes from
// ce-datacontenttype, else from a content-type header of any case, which is not
// percent-encoded; if both are there they must agree. Missing attributes are left
// empty: who lets the event in fills id, source and type. Headers of other names
// are left alone.
//
// Only form is checked here, see Validate for the values. It does not allocate
// once e.Ext and scratch have grown, unless it fails.
//
// Errors: ErrHeaderCase, ErrDuplicate, ErrAttribute, ErrEncoding, ErrVersion,
// ErrMode (the content type is that of structured mode). After an error e is
// partly filled and must not be used.
func (e *Event) FromHeaders(h *wire.Headers, data []byte, scratch *Scratch) error {
	var arena []byte
	if scratch != nil {
		arena = (*scratch)[:0]
	}
	e.Reset()
	version := false
	var err error
	for i := range h.N {
		l := &h.List[i]
		if !wire.HasPrefixFold(l.Name, wire.PrefixAttribute) {
			continue
		}
		if arena, err = e.addHeader(l.Name, l.Value, arena, &version); err != nil {
			return err
		}
	}
	if scratch != nil {
		*scratch = arena
	}
	ct, err := contentType(h)
	if err != nil {
		return err
	}
	return e.finish(ct, data)
}

// FromHeaderMap is FromHeaders for a message that a client library has parsed
// already, such as a nats.Header. It allocates; the event has views into data
// only.
//
// Errors: as FromHeaders, and ErrTooMany. A name with more than one value is a
// duplicate.
func (e *Event) FromHeaderMap(h map[string][]string, data []byte) error {
	e.Reset()
	version := false
	names := make([]string, 0, len(h))
	for name := range h {
		names = append(names, name)
	}
	slices.Sort(names) // so that the same bad message has the same error every time
	var ct []byte
	for _, name := range names {
		attr, isType := wire.HasPrefixFold([]byte(name), wire.PrefixAttribute), wire.EqualFold(name, wire.HeaderContentType)
		if !attr && !isType {
			continue
		}
		values := h[name]
		if len(values) != 1 || isType && ct != nil {
			return attrError(ErrDuplicate, []byte(name), "not exactly one value")
		}
		if isType {
			ct = []byte(values[0])
			continue
		}
		if len(e.Ext) > MaxExtensions {
			return ErrTooMany
		}
		if _, err := e.addHeader([]byte(name), []byte(values[0]), nil, &version); err != nil {
			return err
		}
	}
	if len(e.Ext) > MaxExtensions {
		return ErrTooMany
	}
	return e.finish(ct, data)
}

// addHeader takes one header whose name starts with ce- in any case. It returns
// the arena, to which a decoded value may have been appended.
func (e *Event) addHeader(name, raw, arena []byte, version *bool) ([]byte, error) {
	if name[0] != 'c' || name[1] != 'e' {
		return arena, attrError(ErrHeaderCase, name, "write ce- in lower case")
	}
	attr := name[len(wire.PrefixAttribute):]
	if err := checkName(attr); err != nil {
		return arena, err
	}
	value, arena, err := percentDecode(attr, raw, arena)
	if err != nil {
		return arena, err
	}
	return arena, e.set(attr, value, version)
}

// addValue takes one attribute whose value is not encoded.
func (e *Event) addValue(attr, value []byte, version *bool) error {
	if err := checkName(attr); err != nil {
		return err
	}
	if len(value) == 0 {
		return attrError(ErrAttribute, attr, "empty value")
	}
	return e.set(attr, value, version)
}

// set takes one attribute, which may come once.
func (e *Event) set(attr, value []byte, version *bool) error {
	if slot := e.slot(attr); slot != nil {
		if len(*slot) != 0 {
			return attrError(ErrDuplicate, attr, "header sent twice")
		}
		*slot = value
		return nil
	}
	if string(attr) == "specversion" {
		switch {
		case *version:
			return attrError(ErrDuplicate, attr, "header sent twice")
		case string(value) != specVersion:
			return ErrVersion
		}
		*version = true
		return nil
	}
	i, dup := e.find(attr)
	if dup {
		return attrError(ErrDuplicate, attr, "header sent twice")
	}
	e.Ext = slices.Insert(e.Ext, i, Attr{Name: attr, Value: value})
	return nil
}

// finish settles the content type and takes the data.
func (e *Event) finish(ct, data []byte) error {
	if structuredMedia(ct) {
		return attrError(ErrMode, []byte(wire.HeaderContentType), "a structured event cannot be read as binary mode")
	}
	switch {
	case len(e.ContentType) == 0:
		e.ContentType = ct
	case len(ct) != 0 && !bytes.Equal(ct, e.ContentType):
		return attrError(ErrDuplicate, []byte(wire.HeaderContentType), "differs from ce-datacontenttype")
	}
	e.Data = data
	return nil
}

// checkName says whether name can be an attribute name in a header.
func checkName(name []byte) error {
	if len(name) == 0 || len(name) > MaxNameBytes {
		return attrError(ErrAttribute, name, "a name has 1 to 20 characters")
	}
	for _, c := range name {
		switch {
		case c >= 'a' && c <= 'z' || c >= '0' && c <= '9':
		case c >= 'A' && c <= 'Z':
			return attrError(ErrHeaderCase, name, "write attribute names in lower case")
		default:
			return attrError(ErrAttribute, name, "a name is made of a-z and 0-9")
		}
	}
	if string(name) == "data" {
		return attrError(ErrAttribute, name, "reserved name")
	}
	return nil
}

// percentDecode returns the decoded form of raw: raw itself if nothing is
// encoded, else a view into the arena, which may have moved. One round only.
func percentDecode(name, raw, arena []byte) (value, grown []byte, err error) {
	if len(raw) == 0 {
		return nil, arena, attrError(ErrAttribute, name, "empty value")
	}
	i := bytes.IndexByte(raw, '%')
	if i < 0 {
		return raw, arena, nil
	}
	start := len(arena)
	for {
		arena = append(arena, raw[:i]...)
		if i+2 >= len(raw) {
			return nil, arena, attrError(ErrEncoding, name, "percent sign without two hex digits")
		}
		hi, lo := unhex[raw[i+1]], unhex[raw[i+2]]
		if hi|lo > 0x0f {
			return nil, arena, attrError(ErrEncoding, name, "percent sign without two hex digits")
		}
		arena = append(arena, hi<<4|lo)
		raw = raw[i+3:]
		if i = bytes.IndexByte(raw, '%'); i < 0 {
			arena = append(arena, raw...)
			break
		}
	}
	return arena[start:len(arena):len(arena)], arena, nil
}

// AppendHeaders appends the event as binary mode header lines: ce-specversion,
// the core attributes that are there, then the extensions in order; each
// "ce-<name>: <value>\r\n". It appends no version line, no empty line and no
// data. Values are percent-encoded as the NATS binding says: everything outside
// U+0021..U+007E, the double quote and the percent sign. So no value, however
// hostile, can end its line. Names are written as they are: the event must have
// passed a decoder or Validate. It allocates only to grow dst.
func AppendHeaders(dst []byte, e *Event) []byte {
	dst = append(dst, "ce-specversion: 1.0\r\n"...)
	dst = appendCore(dst, "ce-id: ", e.ID)
	dst = appendCore(dst, "ce-source: ", e.Source)
	dst = appendCore(dst, "ce-type: ", e.Type)
	dst = appendCore(dst, "ce-datacontenttype: ", e.ContentType)
	dst = appendCore(dst, "ce-dataschema: ", e.DataSchema)
	dst = appendCore(dst, "ce-subject: ", e.Subject)
	dst = appendCore(dst, "ce-time: ", e.Time)
	for i := range e.Ext {
		if len(e.Ext[i].Value) == 0 {
			continue
		}
		dst = append(dst, wire.PrefixAttribute...)
		dst = append(dst, e.Ext[i].Name...)
		dst = append(dst, ':', ' ')
		dst = appendEncoded(dst, e.Ext[i].Value)
		dst = append(dst, '\r', '\n')
	}
	return dst
}

func appendCore(dst []byte, lead string, value []byte) []byte {
	if len(value) == 0 {
		return dst
	}
	dst = append(dst, lead...)
	dst = appendEncoded(dst, value)
	return append(dst, '\r', '\n')
}

func appendEncoded(dst, value []byte) []byte {
	const digits = "0123456789ABCDEF"
	from := 0
	for i, c := range value {
		if !encodeByte[c] {
			continue
		}
		dst = append(dst, value[from:i]...)
		dst = append(dst, '%', digits[c>>4], digits[c&15])
		from = i + 1
	}
	return append(dst, value[from:]...)
}

// encodeByte says which bytes of a value travel percent-encoded.
var encodeByte = func() (t [256]bool) {
	for c := range t {
		t[c] = c < 0x21 || c > 0x7e || c == '"' || c == '%'
	}
	return t
}()

// unhex has the value of a hex digit, 0xff for every other byte.
var unhex = func() (t [256]byte) {
	for c := range t {
		switch {
		case c >= '0' && c <= '9':
			t[c] = byte(c - '0')
		case c >= 'a' && c <= 'f':
			t[c] = byte(c - 'a' + 10)
		case c >= 'A' && c <= 'F':
			t[c] = byte(c - 'A' + 10)
		default:
			t[c] = 0xff
		}
	}
	return t
}()

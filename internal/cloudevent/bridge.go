package cloudevent

import (
	"bytes"
	"slices"
	"strings"

	"github.com/signetbus/signet/internal/wire"
)

// The binary modes of HTTP and Kafka, for bridges. Attribute values and data bytes
// pass them unchanged, so signatures do. What one of them could not carry unchanged is
// refused by the encoder and not repaired.

// AppendHTTPHeader adds e to h as the HTTP binding says: "Ce-<Name>" for each
// attribute, percent-encoded as in NATS headers, and datacontenttype as Content-Type.
// h has the type of http.Header, and the keys are in its form; the body is e.Data.
// e must have passed Validate.
//
// Errors: ErrAttribute for a datacontenttype that cannot be a Content-Type.
func AppendHTTPHeader(h map[string][]string, e *Event) error {
	if len(e.ContentType) > 0 {
		if err := checkMedia(e.ContentType); err != nil {
			return err
		}
		h["Content-Type"] = []string{string(e.ContentType)}
	}
	each(e, func(name string, value []byte) {
		h["Ce-"+strings.ToUpper(name[:1])+name[1:]] = []string{string(appendEncoded(nil, value))}
	})
	return nil
}

// FromHTTPHeader decodes a binary mode HTTP message: e is overwritten and has views
// into body only. Header names are of any letter case, as HTTP says; two that differ
// in case only are a duplicate, as are two values of one. Headers of other names are
// left alone.
//
// Errors: as FromHeaderMap.
func (e *Event) FromHTTPHeader(h map[string][]string, body []byte) error {
	folded := make(map[string][]string, len(h))
	for name, values := range h {
		low := strings.ToLower(name)
		if strings.HasPrefix(low, wire.PrefixAttribute) || low == wire.HeaderContentType {
			folded[low] = append(folded[low], values...)
		}
	}
	if _, twice := folded[wire.PrefixAttribute+"datacontenttype"]; twice {
		return attrError(ErrDuplicate, []byte("datacontenttype"), "in HTTP it is the Content-Type")
	}
	return e.FromHeaderMap(folded, body)
}

// checkMedia refuses a content type that HTTP or Kafka would carry as something else:
// as structured mode, with other white space, or not at all.
func checkMedia(ct []byte) error {
	if structuredMedia(ct) {
		return attrError(ErrMode, []byte("datacontenttype"), "reads as structured mode")
	}
	outside := func(c byte) bool { return c < ' ' || c > 0x7e }
	if slices.ContainsFunc(ct, outside) || len(bytes.Trim(ct, " ")) != len(ct) {
		return attrError(ErrAttribute, []byte("datacontenttype"), "cannot be a Content-Type header")
	}
	return nil
}

// KafkaHeader is one header of a Kafka record.
type KafkaHeader struct {
	Key   string
	Value []byte
}

// KafkaRecord is what of a Kafka record an event is in. A nil Value is a tombstone,
// which on a compacted topic deletes: an event with empty data has an empty one.
type KafkaRecord struct {
	Key     []byte // the partitionkey of the event, nil for none
	Headers []KafkaHeader
	Value   []byte
}

// Kafka returns e as the Kafka binding says, in binary mode: "ce_<name>" for each
// attribute, the value as it is, in UTF-8, and datacontenttype as content-type. The
// record has views into e, which must have passed Validate.
//
// Errors: ErrMode for a datacontenttype that reads as structured mode.
func (e *Event) Kafka() (KafkaRecord, error) {
	r := KafkaRecord{Value: e.Data}
	if r.Value == nil {
		r.Value = []byte{}
	}
	if len(e.ContentType) > 0 {
		if structuredMedia(e.ContentType) {
			return KafkaRecord{}, attrError(ErrMode, []byte("datacontenttype"), "reads as structured mode")
		}
		r.Headers = append(r.Headers, KafkaHeader{wire.HeaderContentType, e.ContentType})
	}
	each(e, func(name string, value []byte) { r.Headers = append(r.Headers, KafkaHeader{"ce_" + name, value}) })
	if key := e.Get(wire.AttrPartitionKey); len(key) > 0 {
		r.Key = key
	}
	return r, nil
}

// FromKafka decodes a binary mode record: e is overwritten and has views into r.
// Header names are in lower case, each once. Headers of other names are left alone.
//
// Errors: ErrMode for a tombstone or structured mode, ErrHeaderCase, ErrDuplicate,
// ErrAttribute (a key that is not the partitionkey among them), ErrVersion, ErrTooMany.
// After an error e must not be used.
func (e *Event) FromKafka(r *KafkaRecord) error {
	e.Reset()
	if r.Value == nil {
		return attrError(ErrMode, nil, "a null value is a tombstone, not an event")
	}
	const prefix = "ce_"
	var ct []byte
	version := false
	for _, h := range r.Headers {
		switch {
		case wire.EqualFold(h.Key, wire.HeaderContentType):
			if ct != nil {
				return attrError(ErrDuplicate, []byte(h.Key), "two content types")
			}
			ct = h.Value
		case wire.HasPrefixFold([]byte(h.Key), prefix):
			if h.Key[:len(prefix)] != prefix {
				return attrError(ErrHeaderCase, []byte(h.Key), "write ce_ in lower case")
			}
			if err := e.addValue([]byte(h.Key[len(prefix):]), h.Value, &version); err != nil {
				return err
			}
			if len(e.Ext) > MaxExtensions {
				return ErrTooMany
			}
		}
	}
	if len(e.ContentType) > 0 {
		return attrError(ErrDuplicate, []byte("datacontenttype"), "in Kafka it is the content-type")
	}
	if key := e.Get(wire.AttrPartitionKey); len(key) > 0 && !bytes.Equal(key, r.Key) {
		return attrError(ErrAttribute, []byte(wire.AttrPartitionKey), "differs from the key of the record")
	}
	return e.finish(ct, r.Value)
}

// each calls f with every attribute but datacontenttype, in the order of NATS headers.
func each(e *Event, f func(name string, value []byte)) {
	f("specversion", []byte(specVersion))
	for _, a := range []struct {
		name  string
		value []byte
	}{{"id", e.ID}, {"source", e.Source}, {"type", e.Type}, {"dataschema", e.DataSchema}, {"subject", e.Subject}, {"time", e.Time}} {
		if len(a.value) > 0 {
			f(a.name, a.value)
		}
	}
	for i := range e.Ext {
		if len(e.Ext[i].Value) > 0 {
			f(string(e.Ext[i].Name), e.Ext[i].Value)
		}
	}
}

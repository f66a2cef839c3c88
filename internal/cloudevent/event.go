package cloudevent

import (
	"bytes"
	"slices"
)

// Limits of an event. They hold for what Validate accepts; the decoders refuse
// what could not pass it.
const (
	MaxExtensions = 64   // extension attributes of one event
	MaxNameBytes  = 20   // length of an attribute name
	MaxAttrBytes  = 8192 // what AppendHeaders writes for one event, in bytes
)

// specVersion is the only version of the specification that is read or written.
const specVersion = "1.0"

var specVersionBytes = []byte(specVersion)

// Event is one CloudEvents 1.0 event. All fields are views: they are not copied,
// and they must not be changed while anybody uses the event. A field of length 0
// is an absent attribute. The zero value is an empty event, ready for use.
type Event struct {
	ID          []byte // id
	Source      []byte // source, a URI-reference in ASCII
	Type        []byte // type
	ContentType []byte // datacontenttype
	DataSchema  []byte // dataschema, a URI in ASCII
	Subject     []byte // the CloudEvents subject, which is not the NATS subject
	Time        []byte // time, RFC 3339 as the producer wrote it
	Ext         []Attr // extension attributes, sorted by name, each name once
	Data        []byte // the payload, byte for byte
}

// Attr is one extension attribute; both slices are views.
type Attr struct{ Name, Value []byte }

// Scratch is the memory for values that a decoder could not point at because
// they were percent-encoded, escaped or base64. One scratch belongs to one event:
// every FromHeaders and FromJSON overwrites it, so the views of the event that
// was decoded with it before are then void. Its capacity is kept and grows to the
// largest event seen; set it to nil to give the memory back.
type Scratch []byte

// slot returns the field of a core attribute, nil for any other name.
func (e *Event) slot(name []byte) *[]byte {
	switch string(name) {
	case "id":
		return &e.ID
	case "source":
		return &e.Source
	case "type":
		return &e.Type
	case "datacontenttype":
		return &e.ContentType
	case "dataschema":
		return &e.DataSchema
	case "subject":
		return &e.Subject
	case "time":
		return &e.Time
	}
	return nil
}

// Get returns the value of the core or extension attribute called name, nil if
// there is none. specversion is always "1.0". The caller must not change it.
func (e *Event) Get(name string) []byte {
	switch name {
	case "id":
		return e.ID
	case "source":
		return e.Source
	case "type":
		return e.Type
	case "datacontenttype":
		return e.ContentType
	case "dataschema":
		return e.DataSchema
	case "subject":
		return e.Subject
	case "time":
		return e.Time
	case "specversion":
		return specVersionBytes
	}
	for i := range e.Ext {
		if string(e.Ext[i].Name) == name {
			return e.Ext[i].Value
		}
	}
	return nil
}

// find returns where the extension name stands or belongs in e.Ext.
func (e *Event) find(name []byte) (int, bool) {
	// Producers mostly send extensions in order, and an event has few: a search
	// from the end is a single comparison then.
	for i := len(e.Ext) - 1; i >= 0; i-- {
		switch c := bytes.Compare(e.Ext[i].Name, name); {
		case c == 0:
			return i, true
		case c < 0:
			return i + 1, false
		}
	}
	return 0, false
}

// SetExt sets the extension attribute name to value, keeping Ext sorted. Both
// slices are kept, not copied. It checks neither; Validate does.
func (e *Event) SetExt(name, value []byte) {
	i, ok := e.find(name)
	if ok {
		e.Ext[i].Value = value
		return
	}
	e.Ext = slices.Insert(e.Ext, i, Attr{Name: name, Value: value})
}

// DelExt removes the extension attribute name, if it is there.
func (e *Event) DelExt(name string) {
	for i := range e.Ext {
		if string(e.Ext[i].Name) == name {
			e.Ext = slices.Delete(e.Ext, i, i+1)
			return
		}
	}
}

// Reset empties the event. The capacity of Ext is kept, its old views are not.
func (e *Event) Reset() {
	clear(e.Ext)
	*e = Event{Ext: e.Ext[:0]}
}

// Clone returns a deep copy, which shares no memory with e.
func (e *Event) Clone() *Event {
	size := len(e.ID) + len(e.Source) + len(e.Type) + len(e.ContentType) +
		len(e.DataSchema) + len(e.Subject) + len(e.Time) + len(e.Data)
	for i := range e.Ext {
		size += len(e.Ext[i].Name) + len(e.Ext[i].Value)
	}
	arena := make([]byte, 0, size)
	own := func(v []byte) []byte {
		if len(v) == 0 {
			return nil
		}
		n := len(arena)
		arena = append(arena, v...)
		return arena[n:len(arena):len(arena)]
	}
	c := &Event{
		ID: own(e.ID), Source: own(e.Source), Type: own(e.Type),
		ContentType: own(e.ContentType), DataSchema: own(e.DataSchema),
		Subject: own(e.Subject), Time: own(e.Time), Data: own(e.Data),
	}
	if len(e.Ext) > 0 {
		c.Ext = make([]Attr, len(e.Ext))
		for i := range e.Ext {
			c.Ext[i] = Attr{Name: own(e.Ext[i].Name), Value: own(e.Ext[i].Value)}
		}
	}
	return c
}

// Equal reports whether e and o have the same attributes and the same data, byte
// for byte.
func (e *Event) Equal(o *Event) bool {
	return bytes.Equal(e.ID, o.ID) && bytes.Equal(e.Source, o.Source) &&
		bytes.Equal(e.Type, o.Type) && bytes.Equal(e.ContentType, o.ContentType) &&
		bytes.Equal(e.DataSchema, o.DataSchema) && bytes.Equal(e.Subject, o.Subject) &&
		bytes.Equal(e.Time, o.Time) && bytes.Equal(e.Data, o.Data) &&
		slices.EqualFunc(e.Ext, o.Ext, func(a, b Attr) bool {
			return bytes.Equal(a.Name, b.Name) && bytes.Equal(a.Value, b.Value)
		})
}

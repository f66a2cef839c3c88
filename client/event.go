package client

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2/event"

	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/cloudevent/sdkevent"
	"github.com/signetbus/signet/internal/wire"
)

// ContentTypeJSON is the content type of NewJSONEvent.
const ContentTypeJSON = "application/json"

// Event is a CloudEvents 1.0 event. The zero value of a field is an absent
// attribute; the broker fills in source (/<tenant>/<principal>), and type.
type Event struct {
	ID              string            // default: a new time-ordered UUID for each Publish
	Source          string            // default: the broker's, from the principal; others need a grant
	Type            string            // such as com.example.order.created
	Subject         string            // CloudEvents subject, which is not the NATS subject
	DataContentType string            // media type of Data
	DataSchema      string            // URI
	Time            time.Time         // when it happened; default: now
	Extensions      map[string]string // names of a-z and 0-9, at most 20 characters
	Data            []byte

	timeText string // Time as it came, so that it goes on byte for byte
}

// NewEvent returns an event of a type with data. It has no id: each Publish of
// it is another event, unless ID is set.
func NewEvent(eventType string, data []byte) *Event {
	return &Event{Type: eventType, Data: data}
}

// NewJSONEvent is NewEvent with v as JSON.
//
// Errors: those of json.Marshal.
func NewJSONEvent(eventType string, v any) (*Event, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("client: event data: %w", err)
	}
	return &Event{Type: eventType, DataContentType: ContentTypeJSON, Data: data}, nil
}

// Clone returns a deep copy.
func (e *Event) Clone() *Event {
	c := *e
	c.Extensions = maps.Clone(e.Extensions)
	if e.Data != nil {
		c.Data = append([]byte{}, e.Data...)
	}
	return &c
}

// ToCloudEvent converts e to the event type of cloudevents/sdk-go. Data is
// copied. The event must be complete: id, source and type.
//
// Errors: ErrMalformed.
func (e *Event) ToCloudEvent() (cloudevents.Event, error) {
	rec := e.record()
	if err := rec.Validate(); err != nil {
		return cloudevents.Event{}, malformed("convert", "", e.ID, err)
	}
	out, err := sdkevent.ToSDK(rec.Clone())
	if err != nil {
		return cloudevents.Event{}, malformed("convert", "", e.ID, err)
	}
	return out, nil
}

// FromCloudEvent converts an event of cloudevents/sdk-go. Extensions of other
// types than string become their canonical text; data is copied. Of an event that was
// signed (dssematerial) every attribute is kept, as by Delivery.Attested: it is evidence,
// and to publish it as an event of one's own takes WithoutSignatures. Of any other the
// attributes that a broker sets are left out.
//
// Errors: ErrMalformed.
func FromCloudEvent(in cloudevents.Event) (*Event, error) {
	rec, err := sdkevent.FromSDK(&in)
	if err != nil {
		return nil, malformed("convert", "", in.ID(), err)
	}
	e := &Event{}
	e.fill(rec, len(rec.Get(wire.AttrDSSE)) > 0)
	e.Data = append([]byte(nil), rec.Data...)
	return e, nil
}

// WithoutSignatures returns a copy that can be published as an event of one's own: without
// the signatures of its producer and of brokers, and what they say of who published it,
// when and where. Its ID stays: give it another one if it is another event.
func (e *Event) WithoutSignatures() *Event {
	c := e.Clone()
	maps.DeleteFunc(c.Extensions, func(name, _ string) bool { return brokerAttribute([]byte(name)) })
	return c
}

// NewID returns a time-ordered unique id in the form of a version 7 UUID.
func NewID() string {
	var b [16]byte
	ms := uint64(time.Now().UnixMilli())
	binary.BigEndian.PutUint64(b[:8], ms<<16)
	// crypto/rand.Read never fails: it ends the program instead.
	_, _ = rand.Read(b[6:])
	b[6] = b[6]&0x0f | 0x70
	b[8] = b[8]&0x3f | 0x80
	var s [36]byte
	hex.Encode(s[0:8], b[0:4])
	s[8] = '-'
	hex.Encode(s[9:13], b[4:6])
	s[13] = '-'
	hex.Encode(s[14:18], b[6:8])
	s[18] = '-'
	hex.Encode(s[19:23], b[8:10])
	s[23] = '-'
	hex.Encode(s[24:], b[10:])
	return string(s[:])
}

// record converts e to the internal form: attributes are copied into one buffer,
// Data is a view.
func (e *Event) record() cloudevent.Event {
	size := len(e.ID) + len(e.Source) + len(e.Type) + len(e.Subject) + len(e.DataContentType) + len(e.DataSchema) + len(time.RFC3339Nano)
	for k, v := range e.Extensions {
		size += len(k) + len(v)
	}
	arena := make([]byte, 0, size)
	own := func(s string) []byte {
		if s == "" {
			return nil
		}
		n := len(arena)
		arena = append(arena, s...)
		return arena[n:len(arena):len(arena)]
	}
	rec := cloudevent.Event{
		ID: own(e.ID), Source: own(e.Source), Type: own(e.Type), ContentType: own(e.DataContentType),
		DataSchema: own(e.DataSchema), Subject: own(e.Subject), Data: e.Data,
	}
	if !e.Time.IsZero() {
		rec.Time = own(e.timeString())
	}
	if len(e.Extensions) > 0 {
		rec.Ext = make([]cloudevent.Attr, 0, len(e.Extensions))
		for k, v := range e.Extensions {
			rec.SetExt(own(k), own(v))
		}
	}
	return rec
}

func (e *Event) timeString() string {
	if e.timeText != "" {
		if t, err := time.Parse(time.RFC3339Nano, e.timeText); err == nil && t.Equal(e.Time) {
			return e.timeText
		}
	}
	return e.Time.UTC().Format(time.RFC3339Nano)
}

// fill copies the attributes of rec into e, all strings in one allocation, and
// takes Data as it is. Without all, the attributes that the broker sets stay
// out of Extensions.
func (e *Event) fill(rec *cloudevent.Event, all bool) {
	size := len(rec.ID) + len(rec.Source) + len(rec.Type) + len(rec.Subject) + len(rec.ContentType) + len(rec.DataSchema) + len(rec.Time)
	kept := 0
	for i := range rec.Ext {
		if all || !brokerAttribute(rec.Ext[i].Name) {
			kept++
			size += len(rec.Ext[i].Name) + len(rec.Ext[i].Value)
		}
	}
	arena := make([]byte, 0, size)
	for _, v := range [...][]byte{rec.ID, rec.Source, rec.Type, rec.Subject, rec.ContentType, rec.DataSchema, rec.Time} {
		arena = append(arena, v...)
	}
	if kept > 0 {
		for i := range rec.Ext {
			if all || !brokerAttribute(rec.Ext[i].Name) {
				arena = append(append(arena, rec.Ext[i].Name...), rec.Ext[i].Value...)
			}
		}
	}
	text := string(arena)
	cut := func(v []byte) string {
		s := text[:len(v)]
		text = text[len(v):]
		return s
	}
	e.ID, e.Source, e.Type, e.Subject = cut(rec.ID), cut(rec.Source), cut(rec.Type), cut(rec.Subject)
	e.DataContentType, e.DataSchema, e.timeText = cut(rec.ContentType), cut(rec.DataSchema), cut(rec.Time)
	e.Data = rec.Data
	if e.timeText != "" {
		// An attested event has a time that parses; anything else stays zero.
		e.Time, _ = time.Parse(time.RFC3339Nano, e.timeText)
	}
	if kept == 0 {
		return
	}
	e.Extensions = make(map[string]string, kept)
	for i := range rec.Ext {
		if all || !brokerAttribute(rec.Ext[i].Name) {
			name := cut(rec.Ext[i].Name)
			e.Extensions[name] = cut(rec.Ext[i].Value)
		}
	}
}

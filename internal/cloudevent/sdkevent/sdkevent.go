// Package sdkevent converts between the event record of Signet and the Event of
// github.com/cloudevents/sdk-go/v2, for programs that already use that SDK. It is
// the only importer of the SDK, which is not on any hot path.
//
// The SDK keeps source, dataschema and time parsed and prints them again, which
// can change their bytes and so break a signature. Conversions to the SDK refuse
// an event that it would change, except that time keeps its instant only (the
// signature covers it to the second, in UTC).
//
// The functions keep no state and are safe for concurrent use.
package sdkevent

import (
	"errors"
	"fmt"
	"slices"
	"sort"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/cloudevents/sdk-go/v2/types"

	"github.com/signetbus/signet/internal/cloudevent"
)

// Errors of this package. FromSDK also returns those of cloudevent.Event.Validate.
var (
	// ErrLossy: the SDK would change an attribute.
	ErrLossy = errors.New("sdkevent: the SDK does not keep this attribute as it is")
	// ErrInvalid: the SDK event is not a CloudEvents 1.0 event, or holds errors of
	// its setters.
	ErrInvalid = errors.New("sdkevent: not a valid CloudEvents 1.0 event")
)

// FromSDK converts in and validates the result. Extensions become their canonical
// text: bool, integer, base64 for bytes, RFC 3339 for times; an empty string is an
// absent extension. Data is a view into in; everything else is copied.
//
// Errors: ErrInvalid, and those of cloudevent.Event.Validate.
func FromSDK(in *event.Event) (*cloudevent.Event, error) {
	if in == nil || in.Context == nil {
		return nil, fmt.Errorf("%w: no context", ErrInvalid)
	}
	if v := in.SpecVersion(); v != event.CloudEventsVersionV1 {
		return nil, fmt.Errorf("%w: specversion %q", ErrInvalid, v)
	}
	if len(in.FieldErrors) > 0 {
		fields := make([]string, 0, len(in.FieldErrors))
		for name := range in.FieldErrors {
			fields = append(fields, name)
		}
		sort.Strings(fields)
		return nil, fmt.Errorf("%w: a setter failed for %q", ErrInvalid, fields)
	}
	e := &cloudevent.Event{
		ID: text(in.ID()), Source: text(in.Source()), Type: text(in.Type()),
		ContentType: text(in.DataContentType()), DataSchema: text(in.DataSchema()),
		Subject: text(in.Subject()), Data: in.Data(),
	}
	if t := in.Time(); !t.IsZero() {
		e.Time = text(types.FormatTime(t))
	}
	for name, value := range in.Extensions() {
		v, err := types.Format(value)
		if err != nil {
			return nil, fmt.Errorf("%w: extension %q: %w", ErrInvalid, name, err)
		}
		if v != "" {
			e.SetExt([]byte(name), []byte(v))
		}
	}
	if err := e.Validate(); err != nil {
		return nil, fmt.Errorf("sdkevent: %w", err)
	}
	return e, nil
}

// text makes the bytes of an attribute, nil for an absent one.
func text(s string) []byte {
	if s == "" {
		return nil
	}
	return []byte(s)
}

// ToSDK converts e, sharing no memory with it. Every extension becomes a string,
// because that is what was signed. The result prints its data as data_base64, so
// that json.Marshal keeps the bytes.
//
// Errors: ErrLossy with the name of the attribute.
func ToSDK(e *cloudevent.Event) (event.Event, error) {
	out := event.New(event.CloudEventsVersionV1)
	out.SetID(string(e.ID))
	out.SetSource(string(e.Source))
	out.SetType(string(e.Type))
	if len(e.ContentType) > 0 {
		out.SetDataContentType(string(e.ContentType))
	}
	if len(e.DataSchema) > 0 {
		out.SetDataSchema(string(e.DataSchema))
	}
	if len(e.Subject) > 0 {
		out.SetSubject(string(e.Subject))
	}
	if len(e.Time) > 0 {
		t, ok := cloudevent.ParseTime(e.Time)
		if !ok || t.IsZero() { // the SDK has no way to set the zero time
			return event.Event{}, fmt.Errorf("%w: time", ErrLossy)
		}
		out.SetTime(t)
	}
	for _, a := range e.Ext {
		out.SetExtension(string(a.Name), string(a.Value))
	}
	if len(e.Data) > 0 {
		out.DataEncoded = slices.Clone(e.Data)
		out.DataBase64 = true
	}
	if name := changed(e, &out); name != "" {
		return event.Event{}, fmt.Errorf("%w: %s", ErrLossy, name)
	}
	return out, nil
}

// changed returns the first attribute that out does not give back as e has it.
// (A setter that fails leaves its attribute unset.)
func changed(e *cloudevent.Event, out *event.Event) string {
	for _, f := range []struct {
		name string
		want []byte
		got  string
	}{
		{"id", e.ID, out.ID()},
		{"source", e.Source, out.Source()},
		{"type", e.Type, out.Type()},
		{"datacontenttype", e.ContentType, out.DataContentType()},
		{"dataschema", e.DataSchema, out.DataSchema()},
		{"subject", e.Subject, out.Subject()},
	} {
		if string(f.want) != f.got {
			return f.name
		}
	}
	for _, a := range e.Ext {
		if got, ok := out.Extensions()[string(a.Name)].(string); !ok || got != string(a.Value) {
			return string(a.Name)
		}
	}
	return ""
}

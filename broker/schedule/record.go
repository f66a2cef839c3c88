package schedule

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/signetbus/signet/broker/admission"
	"github.com/signetbus/signet/broker/store"
	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
)

// ErrRecord says that what is stored is no schedule.
var ErrRecord = errors.New("schedule: not a schedule")

// record is a schedule as it is stored.
type record struct {
	ID      string          `json:"id"` // of this put: another one has other events
	Spec    string          `json:"spec"`
	Subject string          `json:"subject"`
	Event   json.RawMessage `json:"event"` // a CloudEvent without id, time and data
	Payload []byte          `json:"payload,omitempty"`
	Put     time.Time       `json:"put"`
}

// template are attributes that a schedule cannot have, and why.
var template = map[string]string{
	"id":          "each firing has one of its own",
	"time":        "each firing has one of its own",
	"expirytime":  "it would be over soon",
	wire.AttrDSSE: "a producer signature is for one event, with its id and time: the broker attests each firing, and no producer signs it",
}

// recordOf makes a record of a request.
//
// Errors: *wire.Refusal.
func recordOf(req *adminapi.SchedulePutRequest, now time.Time) (*record, error) {
	spec, err := ParseSpec(req.Spec)
	if err != nil {
		return nil, malformed(strings.TrimPrefix(err.Error(), "schedule: "))
	}
	if len(req.Payload) > adminapi.MaxSchedulePayload {
		return nil, wire.Refuse(wire.CodePayloadTooLarge, rule, fmt.Sprintf("the payload of a schedule has at most %d bytes", adminapi.MaxSchedulePayload))
	}
	var e cloudevent.Event
	if err := e.FromJSON(req.Event, nil); err != nil {
		return nil, wire.Refuse(wire.CodeEventMalformed, rule, err.Error())
	}
	if len(e.Data) > 0 {
		return nil, malformed("the payload is no member of the event")
	}
	for name, why := range template {
		if len(e.Get(name)) > 0 {
			return nil, wire.Refuse(wire.CodeEventMalformed, rule, "the event of a schedule has no "+name+": "+why)
		}
	}
	rec := &record{ID: strings.ToLower(rand.Text()[:12]), Spec: spec.String(), Subject: req.Subject, Event: bytes.Clone(req.Event), Payload: req.Payload, Put: now.UTC()}
	body, err := json.Marshal(rec)
	switch {
	case err != nil:
		return nil, malformed("the event cannot be stored: " + err.Error())
	case len(body) > store.MaxScheduleBytes:
		return nil, wire.Refuse(wire.CodePayloadTooLarge, rule, fmt.Sprintf("the schedule has %d bytes, at most %d are stored", len(body), store.MaxScheduleBytes))
	}
	return rec, nil
}

// decode reads what is stored.
//
// Errors: ErrRecord.
func decode(data []byte) (*record, error) {
	rec := &record{}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(rec); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	if rec.ID == "" || rec.Subject == "" || d.More() {
		return nil, fmt.Errorf("%w: incomplete", ErrRecord)
	}
	return rec, nil
}

// publish is the event of one firing, as its principal would publish it.
func (r *record) publish(id string, at time.Time) (*admission.Publish, error) {
	var e cloudevent.Event
	if err := e.FromJSON(r.Event, nil); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	e.ID, e.Time = []byte(id), at.UTC().Truncate(time.Millisecond).AppendFormat(nil, time.RFC3339Nano)
	block := cloudevent.AppendHeaders([]byte(wire.HeaderLine), &e)
	return &admission.Publish{Subject: []byte(r.Subject), Header: append(block, '\r', '\n'), Payload: r.Payload}, nil
}

// describe tells others of it.
func (r *record) describe(principal, name string, now time.Time) adminapi.Schedule {
	out := adminapi.Schedule{Principal: principal, Name: name, Spec: r.Spec, Subject: r.Subject, Bytes: len(r.Payload), Put: r.Put}
	if spec, err := ParseSpec(r.Spec); err == nil {
		out.Next = spec.Next(now)
	}
	var e cloudevent.Event
	if e.FromJSON(r.Event, nil) == nil {
		out.Type = string(e.Type)
	}
	return out
}

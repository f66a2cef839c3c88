package dlq

import (
	"encoding/json"

	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
)

// EventType is the CloudEvents type of what a record holds, which is its subject where the
// sender named none; empty where it is no event.
func EventType(r *Record) string {
	e := EventOf(r)
	switch {
	case e == nil:
		return ""
	case len(e.Type) == 0:
		return r.NATSSubject
	}
	return string(e.Type)
}

// EventOf reads the event of a record, in binary or structured mode; nil if it is none. It
// is not validated.
func EventOf(r *Record) *cloudevent.Event {
	var h wire.Headers
	if h.Parse(r.Header) != nil {
		return nil
	}
	structured, err := cloudevent.IsStructured(&h)
	if err != nil {
		return nil
	}
	e := &cloudevent.Event{}
	if structured {
		if !json.Valid(r.Payload) || e.FromJSON(r.Payload, nil) != nil {
			return nil
		}
		return e
	}
	if e.FromHeaders(&h, r.Payload, nil) != nil {
		return nil
	}
	return e
}

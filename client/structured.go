package client

import "github.com/signetbus/signet/internal/cloudevent"

// MarshalJSON writes the event as a structured mode CloudEvent, the attributes
// exactly as they came and the data always as data_base64, so that what was
// signed can be verified again later: see Delivery.Attested. It never fails.
func (e *Event) MarshalJSON() ([]byte, error) {
	rec := e.record()
	return cloudevent.AppendJSON(nil, &rec), nil
}

package dlq

import (
	"encoding/json"
	"math"
	"strconv"

	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
)

// headerRedrives is how often the event had been redriven before it failed again, decimal.
const headerRedrives = "Signet-Dlq-Redrives"

// Failed is the stored event that a dead letter is about, and for whom it failed: what the
// record says or, where it failed again in a retry queue, what the queue says that it was.
type Failed struct {
	Origin
	Subject  string // of the event
	Redrives int    // how often it was redriven before
}

// FailedOf reads Failed of a record, and of the headers that it was decoded from. Only the
// broker writes what it looks at: the original headers of a letter of stage ingress are the
// client's, and are not asked. A count that cannot be read is taken for the largest, so that
// it stops a loop.
func FailedOf(header map[string][]string, r *Record) Failed {
	f := Failed{Origin: r.Origin, Subject: r.NATSSubject}
	if r.Stage == StageIngress {
		return f
	}
	if v := header[headerRedrives]; len(v) > 0 {
		f.Redrives = countOf(v[0])
	}
	var h wire.Headers
	if h.Parse(r.Header) != nil {
		return f
	}
	if v, ok := h.Get(wire.HeaderRedriveCount); ok {
		f.Redrives = max(f.Redrives, countOf(string(v)))
	}
	stream, _ := h.Get(wire.HeaderRedriveStream)
	consumer, _ := h.Get(wire.HeaderRedriveConsumer)
	subject, _ := h.Get(wire.HeaderRedriveSubject)
	if r.Origin.Stream != wire.StreamRetry || len(stream) == 0 || len(consumer) == 0 || len(subject) == 0 {
		return f
	}
	f.Stream, f.Consumer, f.Subject, f.Sequence = string(stream), string(consumer), string(subject), 0
	if v, ok := h.Get(wire.HeaderRedriveSequence); ok {
		f.Sequence, _ = strconv.ParseUint(string(v), 10, 64) // 0 where it says nothing
	}
	return f
}

func countOf(s string) int {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return math.MaxInt32
	}
	return int(n)
}

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

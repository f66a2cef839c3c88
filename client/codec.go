package client

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
)

var errHeaders = errors.New("client: event headers are ambiguous")

// brokerAttribute says whether the extension says who published the event, when and
// where, so that a client that publishes it again must not set it: the broker does, or
// what signs the event anew.
func brokerAttribute(name []byte) bool {
	switch string(name) {
	case wire.AttrAttestation, wire.AttrExpanded, wire.AttrDSSE, wire.AttrAuthID, wire.AttrAuthType,
		wire.AttrRecordedTime, wire.AttrNATSSubject, signing.AttrExactTime:
		return true
	}
	return false
}

// outgoing makes the message of ev with id and, where it has none, the time now.
// The header has lower-case names, as the NATS binding says; values are
// percent-encoded by the one codec, so none can end its line.
func outgoing(subject, id string, ev *Event, now time.Time) (*nats.Msg, error) {
	if err := wire.CheckSubject(subject); err != nil {
		return nil, malformed("publish", subject, id, err)
	}
	out := *ev
	out.ID = id
	if out.Time.IsZero() {
		out.Time, out.timeText = now, ""
	}
	rec := out.record()
	if err := checkOutgoing(rec); err != nil {
		return nil, malformed("publish", subject, id, err)
	}
	return &nats.Msg{Subject: subject, Header: headerOf(&rec), Data: ev.Data}, nil
}

// checkOutgoing validates what the client gave; source and type are the
// broker's to fill in.
func checkOutgoing(rec cloudevent.Event) error {
	if len(rec.Source) == 0 {
		rec.Source = []byte("/")
	}
	if len(rec.Type) == 0 {
		rec.Type = []byte("-")
	}
	return rec.Validate()
}

// headerOf converts the header lines of rec to the form of nats.go: one string,
// one slice of values, one map.
func headerOf(rec *cloudevent.Event) nats.Header {
	lines := string(cloudevent.AppendHeaders(make([]byte, 0, 512), rec))
	n := strings.Count(lines, "\r\n")
	values := make([]string, n)
	h := make(nats.Header, n+1)
	for i := range n {
		line, rest, _ := strings.Cut(lines, "\r\n")
		lines = rest
		name, value, _ := strings.Cut(line, ": ")
		values[i] = value
		h[name] = values[i : i+1 : i+1]
	}
	return h
}

// malformed is a local refusal, of the same class as the broker's.
func malformed(op, subject, id string, err error) *Error {
	return &Error{
		Op: op, Class: string(wire.ClassMalformed), Title: "malformed", Subject: subject,
		EventID: id, Err: err,
	}
}

// decoder turns received messages into records. It belongs to one goroutine; a
// record is valid until the next one.
type decoder struct {
	rec     cloudevent.Event
	headers wire.Headers
	arena   []byte
	scratch cloudevent.Scratch
}

// decode reads the event of msg in binary mode. Header names are compared byte
// for byte; a value that is there twice, or a ce- name in another case, is
// refused, since two readers could take it for two events.
func (d *decoder) decode(msg *nats.Msg) (*cloudevent.Event, error) {
	// Views stay good when the arena grows: the memory they are in is left alone.
	arena := d.arena[:0]
	d.headers.N = 0
	for name, values := range msg.Header {
		if !eventHeader(name) {
			continue
		}
		if len(values) != 1 {
			return nil, fmt.Errorf("%w: %q is there %d times", errHeaders, name, len(values))
		}
		if d.headers.N == len(d.headers.List) {
			// More than a client may send, as the broker adds its own: the slow way.
			if err := d.rec.FromHeaderMap(msg.Header, msg.Data); err != nil {
				return nil, err
			}
			signing.Restore(&d.rec)
			return &d.rec, nil
		}
		a := len(arena)
		arena = append(arena, name...)
		b := len(arena)
		arena = append(arena, values[0]...)
		h := &d.headers.List[d.headers.N]
		h.Name, h.Value = arena[a:b:b], arena[b:len(arena):len(arena)]
		d.headers.N++
	}
	d.arena = arena
	if err := d.rec.FromHeaders(&d.headers, msg.Data, &d.scratch); err != nil {
		return nil, err
	}
	signing.Restore(&d.rec)
	return &d.rec, nil
}

// eventHeader says whether a header belongs to the event, in any letter case.
func eventHeader(name string) bool {
	const p = wire.PrefixAttribute
	if len(name) < len(p) {
		return false
	}
	return name[2] == '-' && wire.EqualFold(name[:len(p)], p) || wire.EqualFold(name, wire.HeaderContentType)
}

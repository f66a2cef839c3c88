package signing

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"time"

	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing/internal/dsse"
)

// PayloadType is the DSSE payload type of an event: the CloudEvents verifiability
// extension, version 0.1.
const PayloadType = "https://cloudevents.io/verifiability/dsse/v0.1"

// AttrExactTime is the name under which the exact text of the time attribute is
// signed when that text is not YYYY-MM-DDTHH:MM:SSZ. The standard signs time with
// a precision of one second only; without this, a fraction could be changed. Like
// natssubject it is derived, not on the wire; producers may not set it.
const AttrExactTime = "exacttime"

// secondsLayout is the form in which the standard signs a time, and the only form
// of recordedtime.
const secondsLayout = "2006-01-02T15:04:05Z"

const sumBytes = sha256.Size

var (
	sumEmpty   = sha256.Sum256(nil)
	sumVersion = sha256.Sum256([]byte("1.0"))
)

// alwaysSigned are the extensions signed on every event, present or not, so that
// nobody can add one later. Ascending. withExactTime is the list for an event whose
// time needs AttrExactTime.
var (
	alwaysSigned = []string{
		wire.AttrAuthID, wire.AttrAuthType, wire.AttrExpiryTime, wire.AttrNATSSubject,
		wire.AttrPartitionKey, wire.AttrRecordedTime, wire.AttrSequence,
	}
	withExactTime = append([]string{wire.AttrAuthID, wire.AttrAuthType, AttrExactTime}, alwaysSigned[2:]...)
)

// The same for a producer, which signs before the broker has said who it is.
var (
	producerSigned        = alwaysSigned[2:]
	producerWithExactTime = withExactTime[2:]
)

// memoBytes bounds the values whose digest is remembered.
const memoBytes = 120

// memo remembers the digest of the last value of one attribute: in a batch most
// events share source, type, principal and time, and comparing is ten times as
// fast as hashing.
type memo struct {
	n    int // 0: nothing remembered
	text [memoBytes]byte
	sum  [sumBytes]byte
}

// holds reports whether v is the value that is remembered.
func (m *memo) holds(v []byte) bool { return m.n > 0 && bytes.Equal(m.text[:m.n], v) }

func (m *memo) append(dst, v []byte) []byte {
	if len(v) == 0 || len(v) > memoBytes {
		return appendSum(dst, v)
	}
	if !m.holds(v) {
		m.sum = sha256.Sum256(v)
		m.n = copy(m.text[:], v)
	}
	return append(dst, m.sum[:]...)
}

func appendSum(dst, v []byte) []byte {
	if len(v) == 0 {
		return append(dst, sumEmpty[:]...)
	}
	s := sha256.Sum256(v)
	return append(dst, s[:]...)
}

// digester turns an event into the bytes that are signed. It is reusable and not
// safe for concurrent use; the zero value works. It keeps no view of any event.
type digester struct {
	source, typ, contentType, schema, when memo
	authID, authType, recorded, subject    memo

	sums []byte // digests, one after the other
	body []byte // the DSSE body
	pae  []byte // 0x00, then the pre-authentication encoding of body
}

// digest checks e and computes what a broker signs for it, into d.body and d.pae.
// It returns the recorded time. Errors wrap ErrMalformed.
func (d *digester) digest(e *cloudevent.Event, natsSubject []byte) (time.Time, error) {
	return d.compute(e, natsSubject, false)
}

// digestProducer is digest of what the producer of e signs.
func (d *digester) digestProducer(e *cloudevent.Event, natsSubject []byte) (time.Time, error) {
	return d.compute(e, natsSubject, true)
}

func (d *digester) compute(e *cloudevent.Event, natsSubject []byte, producer bool) (time.Time, error) {
	var seconds [len(secondsLayout)]byte
	when, exact, err := splitTime(e.Time, &seconds)
	if err != nil {
		return time.Time{}, err
	}
	recorded, err := check(e, natsSubject, exact, producer)
	if err != nil {
		return time.Time{}, err
	}

	d.sums = appendSum(d.sums[:0], e.ID)
	d.sums = d.source.append(d.sums, e.Source)
	d.sums = append(d.sums, sumVersion[:]...)
	d.sums = d.typ.append(d.sums, e.Type)
	d.sums = d.contentType.append(d.sums, e.ContentType)
	d.sums = d.schema.append(d.sums, e.DataSchema)
	d.sums = appendSum(d.sums, e.Subject)
	d.sums = d.when.append(d.sums, when)
	d.sums = appendSum(d.sums, e.Data)
	core := sha256.Sum256(d.sums)

	d.body = append(d.body[:0], `{"core":"`...)
	d.body = base64.StdEncoding.AppendEncode(d.body, core[:])
	d.body = append(d.body, `","ext":"`...)
	// The digest of the extensions is known only once their names are written, so
	// its place is kept.
	at := len(d.body)
	d.body = append(d.body, base64OfSum...)
	d.body = append(d.body, `","signedextattrs":[`...)
	d.appendExtensions(e, natsSubject, exact, producer)
	d.body = append(d.body, "]}"...)
	ext := sha256.Sum256(d.sums)
	base64.StdEncoding.Encode(d.body[at:at+len(base64OfSum)], ext[:])

	d.pae = append(d.pae[:0], leafPrefix)
	d.pae = dsse.AppendPAE(d.pae, PayloadType, d.body)
	return recorded, nil
}

// base64OfSum has the length of a digest in base64.
const base64OfSum = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="

// appendExtensions writes the names of the signed extensions to d.body and their
// digests to d.sums (overwritten): the sorted union of what is always signed and of
// what the event has.
func (d *digester) appendExtensions(e *cloudevent.Event, natsSubject, exact []byte, producer bool) {
	d.sums = d.sums[:0]
	always := alwaysList(len(exact) > 0, producer)
	ext, first := e.Ext, true
	for len(always) > 0 || len(ext) > 0 {
		order := 1 // the next name: -1 of always, 1 of ext, 0 both
		switch {
		case len(ext) == 0:
			order = -1
		case len(always) > 0:
			order = compare(always[0], ext[0].Name)
		}
		var value []byte
		if order >= 0 {
			if notSigned(ext[0].Name, producer) {
				ext = ext[1:]
				continue
			}
			value = ext[0].Value
		}
		if !first {
			d.body = append(d.body, ',')
		}
		first = false
		d.body = append(d.body, '"')
		if order > 0 {
			d.body = append(d.body, ext[0].Name...)
			d.sums = appendSum(d.sums, value)
		} else {
			d.body = append(d.body, always[0]...)
			d.sums = d.appendAlways(always[0], value, natsSubject, exact)
			always = always[1:]
		}
		if order >= 0 {
			ext = ext[1:]
		}
		d.body = append(d.body, '"')
	}
}

func (d *digester) appendAlways(name string, value, natsSubject, exact []byte) []byte {
	switch name {
	case wire.AttrAuthID:
		return d.authID.append(d.sums, value)
	case wire.AttrAuthType:
		return d.authType.append(d.sums, value)
	case wire.AttrRecordedTime:
		return d.recorded.append(d.sums, value)
	case wire.AttrNATSSubject:
		return d.subject.append(d.sums, natsSubject)
	case AttrExactTime:
		return appendSum(d.sums, exact)
	}
	return appendSum(d.sums, value)
}

func compare(a string, b []byte) int {
	switch {
	case a == string(b):
		return 0
	case a < string(b):
		return -1
	}
	return 1
}

func alwaysList(exactTime, producer bool) []string {
	switch {
	case producer && exactTime:
		return producerWithExactTime
	case producer:
		return producerSigned
	case exactTime:
		return withExactTime
	}
	return alwaysSigned
}

// notSigned names the attributes that carry the signature itself and, of what a
// producer signs, those that the broker adds afterwards. A broker signs the
// signature of the producer: it can neither be taken away nor added.
func notSigned(name []byte, producer bool) bool {
	switch string(name) {
	case wire.AttrAttestation, wire.AttrExpanded:
		return true
	case wire.AttrDSSE, wire.AttrAuthID, wire.AttrAuthType:
		return producer
	}
	return false
}

// check refuses what has no unambiguous digest. The names go into the JSON of the
// body unescaped, so their characters matter here; values are only hashed.
func check(e *cloudevent.Event, natsSubject, exact []byte, producer bool) (recorded time.Time, err error) {
	if len(e.ID) == 0 || len(e.Source) == 0 || len(e.Type) == 0 || len(natsSubject) == 0 {
		return recorded, fmt.Errorf("%w: id, source, type and the NATS subject are required", ErrMalformed)
	}
	if len(e.Ext) > cloudevent.MaxExtensions {
		return recorded, fmt.Errorf("%w: %d extensions, limit %d", ErrMalformed, len(e.Ext), cloudevent.MaxExtensions)
	}
	var authID, authType bool
	for i := range e.Ext {
		a := &e.Ext[i]
		if !nameOK(a.Name) || len(a.Value) == 0 || i > 0 && bytes.Compare(e.Ext[i-1].Name, a.Name) >= 0 {
			return recorded, fmt.Errorf("%w: extension %q: name, order or empty value", ErrMalformed, a.Name)
		}
		switch string(a.Name) {
		case wire.AttrAuthID:
			authID = true
		case wire.AttrAuthType:
			authType = true
		case wire.AttrRecordedTime:
			t, ok := cloudevent.ParseTime(a.Value)
			if !ok || len(a.Value) != len(secondsLayout) {
				return recorded, fmt.Errorf("%w: recordedtime is not YYYY-MM-DDTHH:MM:SSZ", ErrMalformed)
			}
			recorded = t
		case wire.AttrNATSSubject:
			// Signed is the subject the event came on. An event that names another
			// must not pass as if that name had been signed.
			if !bytes.Equal(a.Value, natsSubject) {
				return recorded, fmt.Errorf("%w: natssubject is not the subject the event came on", ErrMalformed)
			}
		case wire.AttrExpanded, wire.AttrDSSE:
			if err := checkCarried(a, producer); err != nil {
				return recorded, err
			}
		case AttrExactTime:
			if !bytes.Equal(a.Value, exact) { // also when the time needs none
				return recorded, fmt.Errorf("%w: exacttime is not the text of time", ErrMalformed)
			}
		case "id", "source", "type", "specversion", "datacontenttype", "dataschema", "subject", "time", "data", "database64":
			return recorded, fmt.Errorf("%w: %q cannot be an extension", ErrMalformed, a.Name)
		}
	}
	switch {
	case recorded.IsZero():
		return recorded, fmt.Errorf("%w: recordedtime is required", ErrMalformed)
	case !producer && (!authID || !authType):
		return recorded, fmt.Errorf("%w: authid and authtype are required", ErrMalformed)
	case producer && (len(e.ContentType) == 0 || len(e.Time) == 0):
		// A binding or a broker would fill them in, and the signature would not hold.
		return recorded, fmt.Errorf("%w: a producer signs datacontenttype and time", ErrMalformed)
	}
	return recorded, nil
}

// checkCarried looks at what carries a signature beside an attestation: the
// expanded attestation would be unsigned, and what is no producer signature has no
// place on an event that a broker signs.
func checkCarried(a *cloudevent.Attr, producer bool) error {
	switch {
	case producer:
		return nil
	case string(a.Name) == wire.AttrExpanded:
		return fmt.Errorf("%w: %s beside an attestation would be unsigned", ErrMalformed, wire.AttrExpanded)
	}
	return checkMaterialForm(a.Value)
}

func nameOK(name []byte) bool {
	for _, c := range name {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return len(name) > 0 && len(name) <= cloudevent.MaxNameBytes
}

// splitTime returns the text of the time attribute that the standard signs, and
// the exact text where that is another (views of t or of buf). Both are empty if
// the event has no time.
func splitTime(t []byte, buf *[len(secondsLayout)]byte) (when, exact []byte, err error) {
	if len(t) == 0 {
		return nil, nil, nil
	}
	parsed, ok := cloudevent.ParseTime(t)
	switch {
	case !ok:
		return nil, nil, fmt.Errorf("%w: time is not an RFC 3339 time", ErrMalformed)
	case len(t) == len(secondsLayout): // no fraction and no offset fit
		return t, nil, nil
	}
	return parsed.AppendFormat(buf[:0], secondsLayout), t, nil
}

// AppendRecordedTime appends t as recordedtime is written: UTC, whole seconds,
// rounded down.
func AppendRecordedTime(dst []byte, t time.Time) []byte {
	return t.UTC().AppendFormat(dst, secondsLayout)
}

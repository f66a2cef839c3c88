package dlq

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/signetbus/signet/internal/wire"
)

// Limits of a record.
const (
	MaxText       = 2048     // bytes of one text member before escaping; longer ones are cut by Encode
	MaxViolations = 10       // more are dropped by Encode
	MaxHeader     = 64 << 10 // bytes of the original header block
	MaxDeliveries = 16       // times of deliveries; of more, Encode keeps the first and the latest
)

// version is the value of Signet-Dlq-Version.
const version = "1"

// Header names of a dead letter.
const (
	HeaderVersion      = "Signet-Dlq-Version"
	HeaderReason       = "Signet-Dlq-Reason"
	HeaderCode         = "Signet-Dlq-Code"
	HeaderRule         = "Signet-Dlq-Rule"
	HeaderDetail       = "Signet-Dlq-Detail"
	HeaderRef          = "Signet-Dlq-Ref"
	HeaderPrincipal    = "Signet-Dlq-Principal"
	HeaderSubject      = "Signet-Dlq-Subject"
	HeaderTime         = "Signet-Dlq-Time"
	HeaderStage        = "Signet-Dlq-Stage"
	HeaderAttempts     = "Signet-Dlq-Attempts"
	HeaderStream       = "Signet-Dlq-Stream"
	HeaderSequence     = "Signet-Dlq-Sequence"
	HeaderConsumer     = "Signet-Dlq-Consumer"
	HeaderPolicy       = "Signet-Dlq-Policy"
	HeaderSchema       = "Signet-Dlq-Schema"
	HeaderViolations   = "Signet-Dlq-Violations"
	HeaderHeaderLength = "Signet-Dlq-Header-Length"
	HeaderBy           = "Signet-Dlq-By"
	HeaderStored       = "Signet-Dlq-Stored"
	HeaderDeliveries   = "Signet-Dlq-Deliveries"
	HeaderRedrives     = "Signet-Dlq-Redrives"
)

// Errors of Encode and Decode.
var (
	ErrRecord  = errors.New("dlq: malformed record")
	ErrVersion = errors.New("dlq: unknown record version")
)

// Record is one dead letter. Zero members do not apply.
type Record struct {
	Reason      Reason
	Code        wire.Code // of the refusal; 0 for consumer and bridge stages
	Rule        string
	Detail      string
	Ref         string // of the audit record
	Principal   string // "tenant/name" of the sender (ingress) or of the consumer's owner
	NATSSubject string // as the sender wrote it
	Time        time.Time
	Stage       Stage
	Attempts    int // deliveries before it was given up
	Origin      Origin
	By          string     // "tenant/name" who had it last or gave it up; of the consumer stage
	Stored      time.Time  // when the event was stored; of the consumer stage
	Deliveries  []Delivery // those whose time is known, in order
	Redrives    int        // how often the event was redriven before
	Policy      string     // version (digest) of the policy that decided
	Schema      string     // "name@version" that the payload was held against
	Violations  []wire.Violation

	Header  []byte // the original header block, exact; empty if there was none
	Payload []byte // the original payload, exact
}

// Origin names the stored event that a consumer or bridge failed on.
type Origin struct {
	Stream   string
	Sequence uint64
	Consumer string
}

// Delivery is when a consumer delivered an event.
type Delivery struct {
	Attempt int // from 1
	At      time.Time
}

// FromRefusal starts an ingress record from a refusal; header and payload are
// taken as they are, not copied.
func FromRefusal(r *wire.Refusal, at time.Time, header, payload []byte) *Record {
	return &Record{
		Reason: ReasonOf(r.Code), Code: r.Code, Rule: r.Rule, Detail: r.Detail, Ref: r.Ref,
		Principal: r.Principal, NATSSubject: r.Subject, Time: at, Stage: StageIngress,
		Violations: r.Violations, Header: header, Payload: payload,
	}
}

// Subject returns the subject of the record in the DLQ stream:
// $SIGNET.DLQ.<reason>.<principal>. The principal is the name without its tenant;
// characters outside the token set, and a missing name, become "_".
func (r *Record) Subject() string {
	return wire.PrefixDLQ + string(r.Reason) + "." + token(r.Principal)
}

func token(principal string) string {
	_, name, ok := strings.Cut(principal, "/")
	if !ok {
		name = principal
	}
	if name == "" {
		return "_"
	}
	b := []byte(name)
	for i := range b {
		if wire.CheckSubject(b[i:i+1]) != nil {
			b[i] = '_'
		}
	}
	return string(b[:min(len(b), 64)])
}

// MsgID returns the deduplication id under which the record is written: the same
// failure of the same stored event is one dead letter however often it is written
// (after a redrive it is another), and a refusal (refs are unique) is one dead letter however often a write of it is
// tried again. It is empty if the record has neither origin nor ref.
func (r *Record) MsgID() string {
	switch {
	case r.Origin.Stream != "":
		id := "dlq:" + escape(cut(r.Origin.Stream)) + ":" + escape(cut(r.Origin.Consumer)) + ":" +
			strconv.FormatUint(r.Origin.Sequence, 10)
		if r.Redrives > 0 {
			id += ":" + strconv.Itoa(r.Redrives)
		}
		return id
	case r.Ref != "":
		return "dlq:ref:" + escape(cut(r.Ref))
	default:
		return ""
	}
}

// Encode returns the headers and the body of the message: the body is the original
// header block followed by the original payload. Text over MaxText is cut.
//
// Errors: ErrRecord for an unknown reason or stage, a missing time, a negative
// number, a header block over MaxHeader or a Time outside the years 0 to 9999.
func (r *Record) Encode() (header map[string][]string, body []byte, err error) {
	switch {
	case !r.Reason.Valid(), !r.Stage.Valid(), r.Time.IsZero():
		return nil, nil, fmt.Errorf("%w: reason, stage and time are needed", ErrRecord)
	case r.Attempts < 0 || r.Code < 0 || r.Redrives < 0:
		return nil, nil, fmt.Errorf("%w: negative number", ErrRecord)
	case len(r.Header) > MaxHeader:
		return nil, nil, fmt.Errorf("%w: header block over 64 KiB", ErrRecord)
	}
	if !r.timesInRange() {
		return nil, nil, fmt.Errorf("%w: time out of range", ErrRecord)
	}
	h := map[string][]string{
		HeaderVersion:      {version},
		HeaderReason:       {string(r.Reason)},
		HeaderStage:        {string(r.Stage)},
		HeaderTime:         {r.Time.UTC().Format(time.RFC3339Nano)},
		HeaderHeaderLength: {strconv.Itoa(len(r.Header))},
	}
	for _, m := range r.texts() {
		if *m.value != "" {
			h[m.name] = []string{escape(cut(*m.value))}
		}
	}
	if r.Code != 0 {
		h[HeaderCode] = []string{strconv.Itoa(int(r.Code))}
	}
	if r.Attempts != 0 {
		h[HeaderAttempts] = []string{strconv.Itoa(r.Attempts)}
	}
	if r.Origin.Sequence != 0 {
		h[HeaderSequence] = []string{strconv.FormatUint(r.Origin.Sequence, 10)}
	}
	r.encodeHistory(h)
	if len(r.Violations) > 0 {
		b, err := json.Marshal(r.Violations[:min(len(r.Violations), MaxViolations)])
		if err != nil {
			return nil, nil, fmt.Errorf("%w: violations: %w", ErrRecord, err)
		}
		h[HeaderViolations] = []string{escape(string(b))}
	}
	if id := r.MsgID(); id != "" {
		h[wire.HeaderMsgID] = []string{id}
	}
	body = make([]byte, 0, len(r.Header)+len(r.Payload))
	return h, append(append(body, r.Header...), r.Payload...), nil
}

type text struct {
	name  string
	value *string
}

// texts are the members that are text, in the order of the specification.
func (r *Record) texts() []text {
	return []text{
		{HeaderRule, &r.Rule},
		{HeaderDetail, &r.Detail},
		{HeaderRef, &r.Ref},
		{HeaderPrincipal, &r.Principal},
		{HeaderSubject, &r.NATSSubject},
		{HeaderStream, &r.Origin.Stream},
		{HeaderConsumer, &r.Origin.Consumer},
		{HeaderPolicy, &r.Policy},
		{HeaderSchema, &r.Schema},
		{HeaderBy, &r.By},
	}
}

// Decode reads a message of the DLQ stream; Header and Payload are views into
// body. Headers that it does not know are ignored: version 1 may gain some.
//
// Errors: ErrVersion, ErrRecord.
func Decode(header map[string][]string, body []byte) (*Record, error) {
	d := decoder{header: header}
	if v := d.text(HeaderVersion); v != version {
		return nil, fmt.Errorf("%w: %.16q", ErrVersion, v)
	}
	r := &Record{Reason: Reason(d.text(HeaderReason)), Stage: Stage(d.text(HeaderStage))}
	for _, m := range r.texts() {
		*m.value = d.text(m.name)
	}
	r.Code = wire.Code(d.number(HeaderCode, 1<<31-1))
	r.Attempts = int(d.number(HeaderAttempts, 1<<31-1))
	r.Origin.Sequence = d.number(HeaderSequence, 1<<64-1)
	split := d.number(HeaderHeaderLength, MaxHeader)
	at, err := time.Parse(time.RFC3339Nano, d.text(HeaderTime))
	if err != nil {
		d.fail(HeaderTime)
	}
	r.Time = at.UTC()
	if r.Time.IsZero() || r.Time.Year() < 0 || r.Time.Year() > 9999 {
		d.fail(HeaderTime)
	}
	d.history(r)
	if v := d.text(HeaderViolations); v != "" {
		if json.Unmarshal([]byte(v), &r.Violations) != nil || len(r.Violations) > MaxViolations {
			d.fail(HeaderViolations)
		}
	}
	if !r.Reason.Valid() || !r.Stage.Valid() {
		d.fail(HeaderReason)
	}
	if split > uint64(len(body)) {
		d.fail(HeaderHeaderLength)
	}
	if d.bad != "" {
		return nil, fmt.Errorf("%w: %s", ErrRecord, d.bad)
	}
	r.Header, r.Payload = body[:split:split], body[split:]
	return r, nil
}

// decoder reads members and remembers the first that is bad.
type decoder struct {
	header map[string][]string
	bad    string
}

func (d *decoder) fail(name string) {
	if d.bad == "" {
		d.bad = name
	}
}

func (d *decoder) text(name string) string {
	values := d.header[name]
	if len(values) == 0 {
		return ""
	}
	s, ok := unescape(values[0])
	if !ok || len(values) > 1 {
		d.fail(name)
	}
	return s
}

func (d *decoder) number(name string, limit uint64) uint64 {
	s := d.text(name)
	if s == "" {
		return 0
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > limit {
		d.fail(name)
		return 0
	}
	return n
}

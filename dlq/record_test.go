package dlq

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/signetbus/signet/internal/wire"
)

func sample() *Record {
	return &Record{
		Reason: ReasonSchema, Code: wire.CodeSchemaViolation, Rule: "subject orders.*.created",
		Detail: "2 violations, 100 % sure\r\nx: y", Ref: "k3f9q-1a", Principal: "shop/checkout",
		NATSSubject: "orders.1.created", Time: time.Date(2026, 11, 22, 10, 0, 0, 123, time.UTC),
		Stage: StageIngress, Attempts: 3, Origin: Origin{"ORDERS", 7, "billing"},
		Policy: strings.Repeat("ab", 32), Schema: "order-created@3",
		Violations: []wire.Violation{{At: "/qty", Rule: "type", Message: "want integer, got string of 3 bytes"}},
		Header:     []byte("NATS/1.0\r\nce-id: 1\r\n\r\n"), Payload: []byte("{\"qty\":\"\x00\xff\"}"),
		By: "shop/worker", Stored: time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC), Redrives: 2,
		Deliveries: []Delivery{{1, time.Date(2026, 11, 22, 9, 0, 1, 0, time.UTC)}, {3, time.Date(2026, 11, 22, 9, 9, 0, 7, time.UTC)}},
	}
}

// TestMsgIDOfARedrive: what was redriven and fails again is another dead letter; the same
// failure is the same one, whatever is written of it.
func TestMsgIDOfARedrive(t *testing.T) {
	a, b := sample(), sample()
	b.Attempts, b.Reason, b.Time = 9, ReasonTerminated, b.Time.Add(time.Hour)
	if a.MsgID() != b.MsgID() || a.MsgID() != "dlq:ORDERS:billing:7:2" {
		t.Errorf("ids of one failure: %s and %s", a.MsgID(), b.MsgID())
	}
	b.Redrives++
	if a.MsgID() == b.MsgID() {
		t.Errorf("the id after another redrive is still %s", b.MsgID())
	}
	b.Redrives = 0
	if b.MsgID() != "dlq:ORDERS:billing:7" {
		t.Errorf("id of the first failure: %s", b.MsgID())
	}
}

// TestManyDeliveries: of more times than are kept, the first and the latest stay.
func TestManyDeliveries(t *testing.T) {
	r := sample()
	r.Deliveries = nil
	for i := range 40 {
		r.Deliveries = append(r.Deliveries, Delivery{Attempt: i + 1, At: r.Stored.Add(time.Duration(i) * time.Second)})
	}
	h, body, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(h, body)
	if err != nil {
		t.Fatal(err)
	}
	n := len(got.Deliveries)
	if n != MaxDeliveries || got.Deliveries[0] != r.Deliveries[0] || got.Deliveries[1].Attempt != 40-MaxDeliveries+2 || got.Deliveries[n-1].Attempt != 40 {
		t.Errorf("kept %+v", got.Deliveries)
	}
}

func TestRecordRoundTrip(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit func(*Record)
	}{
		{"all members", func(*Record) {}},
		{"no header", func(r *Record) { r.Header = []byte{} }},
		{"no payload", func(r *Record) { r.Payload = []byte{} }},
		{"wild subject", func(r *Record) { r.NATSSubject = " \xffevil\r\nX: y% " }},
		{"only what is needed", func(r *Record) {
			*r = Record{Reason: ReasonACL, Stage: StageIngress, Time: r.Time, Header: []byte{}, Payload: []byte{}}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := sample()
			tt.edit(want)
			h, body, err := want.Encode()
			if err != nil {
				t.Fatalf("Encode: %v", err)
			}
			for name, values := range h {
				for i := range len(values[0]) {
					if c := values[0][i]; c < ' ' || c >= 0x7f {
						t.Errorf("header %s has byte %#x", name, c)
					}
				}
			}
			got, err := Decode(h, body)
			if err != nil {
				t.Fatalf("Decode: %v", err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("Decode(Encode(r)) = %+v, want %+v", got, want)
			}
		})
	}
}

func TestRecordRefused(t *testing.T) {
	for _, tt := range []struct {
		name, header, value string
		want                error
	}{
		{"version", HeaderVersion, "2", ErrVersion},
		{"reason", HeaderReason, "mood", ErrRecord},
		{"stage", HeaderStage, "exit", ErrRecord},
		{"time", HeaderTime, "yesterday", ErrRecord},
		{"header length past the body", HeaderHeaderLength, "60000", ErrRecord},
		{"negative", HeaderAttempts, "-1", ErrRecord},
		{"escape", HeaderDetail, "a%zz", ErrRecord},
		{"second encoding of one text", HeaderDetail, "%41", ErrRecord},
		{"violations", HeaderViolations, "[", ErrRecord},
		{"time of storing", HeaderStored, "soon", ErrRecord},
		{"deliveries without a time", HeaderDeliveries, "1", ErrRecord},
		{"delivery zero", HeaderDeliveries, "0@2026-11-22T09:00:01Z", ErrRecord},
		{"deliveries that end in nothing", HeaderDeliveries, "1@2026-11-22T09:00:01Z,", ErrRecord},
		{"too many deliveries", HeaderDeliveries, strings.Repeat("1@2026-11-22T09:00:01Z,", MaxDeliveries) + "2@2026-11-22T09:00:01Z", ErrRecord},
		{"redrives", HeaderRedrives, "often", ErrRecord},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, body, _ := sample().Encode()
			h[tt.header] = []string{tt.value}
			if _, err := Decode(h, body); !errors.Is(err, tt.want) {
				t.Errorf("Decode = %v, want %v", err, tt.want)
			}
		})
	}
	h, body, _ := sample().Encode()
	h[HeaderRef] = []string{"a", "b"}
	if _, err := Decode(h, body); !errors.Is(err, ErrRecord) {
		t.Errorf("repeated header: %v, want ErrRecord", err)
	}
}

func TestRecordSubject(t *testing.T) {
	for _, tt := range []struct{ principal, want string }{
		{"shop/checkout", "$SIGNET.DLQ.schema.checkout"},
		{"shop/a.b>*", "$SIGNET.DLQ.schema.a_b__"},
		{"", "$SIGNET.DLQ.schema._"},
	} {
		r := Record{Reason: ReasonSchema, Principal: tt.principal}
		if got := r.Subject(); got != tt.want {
			t.Errorf("Subject(%q) = %s, want %s", tt.principal, got, tt.want)
		}
	}
}

func TestReasonOfEveryCode(t *testing.T) {
	for _, e := range wire.Registry() {
		if r := ReasonOf(e.Code); !r.Valid() {
			t.Errorf("%s has reason %q, which is unknown", e.Name, r)
		}
	}
	for reason, want := range map[Reason]bool{ReasonSchema: true, ReasonSignature: true, ReasonACL: false, ReasonRate: false, ReasonSize: false, ReasonMalformed: false} {
		if got := reason.StoredByDefault(); got != want {
			t.Errorf("%s stored by default = %v, want %v", reason, got, want)
		}
	}
}

func TestFilter(t *testing.T) {
	r := sample()
	for _, tt := range []struct {
		name string
		f    Filter
		want bool
	}{
		{"empty", Filter{}, true},
		{"reason", Filter{Reasons: []Reason{ReasonACL, ReasonSchema}}, true},
		{"other reason", Filter{Reasons: []Reason{ReasonACL}}, false},
		{"principal by name", Filter{Principal: "checkout"}, true},
		{"principal of another tenant", Filter{Principal: "bank/checkout"}, false},
		{"subject", Filter{Subject: "orders.>"}, true},
		{"other subject", Filter{Subject: "orders.*.paid"}, false},
		{"since", Filter{Since: r.Time}, true},
		{"until is exclusive", Filter{Until: r.Time}, false},
		{"code", Filter{Code: wire.CodePublishDenied}, false},
		{"origin", Filter{Stream: "ORDERS", Consumer: "billing"}, true},
		{"ref", Filter{Ref: "zz"}, false},
		{"stage", Filter{Stage: StageConsumer}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.f.Validate(); err != nil {
				t.Fatal(err)
			}
			if got := tt.f.Match(r); got != tt.want {
				t.Errorf("Match = %v, want %v", got, tt.want)
			}
			covered := false
			for _, s := range tt.f.Subjects() {
				covered = covered || wire.Match(s, r.Subject())
			}
			if tt.want && !covered {
				t.Errorf("Subjects() = %q misses a selected record on %s", tt.f.Subjects(), r.Subject())
			}
		})
	}
	bad := Filter{Reasons: []Reason{"x"}}
	if bad.Validate() == nil {
		t.Error("an unknown reason passes")
	}
}

// FuzzRecord: whatever decodes encodes to what decodes to the same record; any
// member values survive.
func FuzzRecord(f *testing.F) {
	f.Add("schema", "ingress", "2026-11-22T10:00:00Z", "a%0Db", "12", "[]", []byte("NATS/1.0\r\n\r\nx"))
	f.Add("delivery", "consumer", "2026-11-22T10:00:00Z", "1@2026-11-22T09:00:01Z,5@2026-11-22T09:30:00.5Z", "0", "", []byte("{}"))
	f.Add("acl", "consumer", "0000-01-01T00:00:00.1Z", "", "0", `[{"at":"","rule":"","message":"\ud800"}]`, []byte{})
	f.Fuzz(func(t *testing.T, reason, stage, at, detail, split, violations string, body []byte) {
		raw := Record{Reason: ReasonACL, Stage: StageBridge, Time: time.Unix(1, 0), Detail: detail, NATSSubject: reason, Header: []byte(split), Payload: body}
		if h, b, err := raw.Encode(); err == nil {
			got, err := Decode(h, b)
			if err != nil {
				t.Fatalf("own encoding refused: %v", err)
			}
			if got.Detail != cut(detail) || got.NATSSubject != cut(reason) || !bytes.Equal(got.Payload, body) || string(got.Header) != split {
				t.Fatalf("got %+v", got)
			}
		}
		h := map[string][]string{
			HeaderVersion: {version}, HeaderReason: {reason}, HeaderStage: {stage}, HeaderTime: {at},
			HeaderDetail: {detail}, HeaderHeaderLength: {split}, HeaderViolations: {violations}, HeaderDeliveries: {detail}, HeaderStored: {at},
		}
		r, err := Decode(h, body)
		if err != nil {
			return
		}
		r.Detail = cut(r.Detail)
		h2, b2, err := r.Encode()
		if err != nil {
			t.Fatalf("decoded record does not encode: %v", err)
		}
		again, err := Decode(h2, b2)
		if err != nil {
			t.Fatalf("re-encoded record does not decode: %v", err)
		}
		if len(r.Violations) == 0 {
			r.Violations = nil
		}
		if !reflect.DeepEqual(r, again) {
			t.Fatalf("got %+v, want %+v", again, r)
		}
	})
}

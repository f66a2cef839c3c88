package adminapi_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/internal/wire"
)

func TestSubjectsAreOfKnownAreas(t *testing.T) {
	if !slices.IsSorted(adminapi.Subjects()) || !slices.IsSorted(adminapi.Areas()) {
		t.Fatal("Subjects and Areas must be sorted")
	}
	for _, s := range adminapi.Subjects() {
		area, open, ok := adminapi.Grant(s)
		if !ok || !slices.Contains(adminapi.Areas(), area) {
			t.Errorf("Grant(%q) = %q, %v", s, area, ok)
		}
		if open != (s == adminapi.SubjectKeysRing || s == adminapi.SubjectKeysCertify) {
			t.Errorf("Grant(%q) open = %v", s, open)
		}
		if err := wire.CheckRawSubject(s, false); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestSplitRefusesOtherForms(t *testing.T) {
	for _, s := range []string{"", "$SIGNET.API.", "$SIGNET.API.keys", "$SIGNET.API..ring", "$SIGNET.API.keys.", "$SIGNET.API.keys.ring.x", "$SIGNET.APIx.keys.ring"} {
		if area, verb, ok := adminapi.Split(s); ok {
			t.Errorf("Split(%q) = %q, %q, want no", s, area, verb)
		}
	}
}

func TestDecodeRequest(t *testing.T) {
	tests := []struct {
		name, body string
		wantErr    bool
		wantSeq    uint64
	}{
		{"empty", "", false, 0},
		{"empty object", "{}", false, 0},
		{"known", `{"seq":7}`, false, 7},
		{"unknown member", `{"seq":7,"force":true}`, true, 0},
		{"trailing value", `{"seq":7}{}`, true, 0},
		{"trailing text", `{"seq":7} x`, true, 0},
		{"array", `[]`, true, 0},
		{"wrong type", `{"seq":"7"}`, true, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var r adminapi.DLQShowRequest
			err := adminapi.DecodeRequest([]byte(tt.body), &r)
			if (err != nil) != tt.wantErr || err != nil && !errors.Is(err, adminapi.ErrRequest) {
				t.Fatalf("error = %v, want error %v", err, tt.wantErr)
			}
			if err == nil && r.Seq != tt.wantSeq {
				t.Fatalf("seq = %d, want %d", r.Seq, tt.wantSeq)
			}
		})
	}
}

// A record of the audit trail is hashed as it is encoded: neither end may escape what HTML
// would need escaped.
func TestAnswerKeepsTheBytesOfDocuments(t *testing.T) {
	for _, text := range []string{">", "<", "&", "\u2028", `\"`, `\u0001`, "é"} {
		record := json.RawMessage(`{"v":1,"subject":"orders.` + text + `"}`)
		b, err := adminapi.EncodeResult(adminapi.AuditList{Records: []json.RawMessage{record}})
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(b, record) {
			t.Errorf("the answer is %s, want %s in it", b, record)
		}
		var got adminapi.AuditList
		if err := adminapi.DecodeAnswer(b, &got); err != nil || len(got.Records) != 1 || !bytes.Equal(got.Records[0], record) {
			t.Errorf("got %s, %v, want %s", got.Records, err, record)
		}
		request := adminapi.SchedulePutRequest{Event: record}
		if b, err := adminapi.EncodeRequest(&request); err != nil || !bytes.Contains(b, record) {
			t.Errorf("the request is %s, %v, want %s in it", b, err, record)
		}
	}
}

func TestAnswerRoundTrip(t *testing.T) {
	want := adminapi.DLQShow{
		DeadLetter: adminapi.DeadLetter{Seq: 3, Reason: "schema", Subject: "orders.created", Time: time.Unix(1, 0).UTC(), Bytes: 2},
		Header:     []byte("NATS/1.0\r\n\r\n"), Payload: []byte{0, 255},
	}
	b, err := adminapi.EncodeResult(want)
	if err != nil {
		t.Fatal(err)
	}
	var got adminapi.DLQShow
	if err := adminapi.DecodeAnswer(b, &got); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, want %+v", got, want)
	}
}

func TestDecodeAnswerRefusal(t *testing.T) {
	r := wire.Refuse(wire.CodeAdminDenied, "admin", "")
	r.Ref = "abc"
	var got *wire.Refusal
	err := adminapi.DecodeAnswer(r.Answer("", false), nil)
	if !errors.As(err, &got) || got.Code != wire.CodeAdminDenied || got.Ref != "abc" {
		t.Fatalf("error = %v", err)
	}
	err = adminapi.DecodeAnswer([]byte(`{"error":{"code":404,"err_code":40700,"description":"gone"}}`), nil)
	if !errors.As(err, &got) || got.Code != wire.CodeNotFound || got.Detail != "gone" {
		t.Fatalf("error without problem = %v", err)
	}
	for _, body := range []string{"", "{}", "null", "x", `{"result":5}`} {
		var s adminapi.Status
		if err := adminapi.DecodeAnswer([]byte(body), &s); !errors.Is(err, adminapi.ErrAnswer) {
			t.Errorf("DecodeAnswer(%q) = %v, want ErrAnswer", body, err)
		}
	}
}

// Zero times must stay out of requests: 0001-01-01 is not a filter.
func TestRequestsLeaveOutZeroValues(t *testing.T) {
	for _, r := range []any{adminapi.RefusalsLsRequest{}, adminapi.DLQLsRequest{}} {
		b, err := json.Marshal(r)
		if err != nil || string(b) != "{}" {
			t.Errorf("%T = %s, %v", r, b, err)
		}
	}
	if b, err := adminapi.EncodeRequest(nil); err != nil || string(b) != "{}" {
		t.Errorf("EncodeRequest(nil) = %s, %v", b, err)
	}
}

package admin_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/internal/adminapi"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeCaller answers by a function, through JSON both ways.
type fakeCaller func(subject string, request []byte) (any, error)

func (f fakeCaller) API(_ context.Context, area, verb string, request, result any) error {
	body, err := adminapi.EncodeRequest(request)
	if err != nil {
		return err
	}
	answer, err := f("$SIGNET.API."+area+"."+verb, body)
	if err != nil {
		return err
	}
	b, err := adminapi.EncodeResult(answer)
	if err != nil {
		return err
	}
	return adminapi.DecodeAnswer(b, result)
}

func TestCallsUseTheirSubjects(t *testing.T) {
	var got string
	var body []byte
	a := admin.New(fakeCaller(func(subject string, request []byte) (any, error) {
		got, body = subject, request
		return struct{}{}, nil
	}))
	ctx := context.Background()
	tests := []struct {
		subject, body string
		call          func() error
	}{
		{adminapi.SubjectKeysRing, `{}`, func() error { _, err := a.KeyRing(ctx); return err }},
		{adminapi.SubjectKeysLs, `{}`, func() error { _, err := a.Keys(ctx); return err }},
		{adminapi.SubjectKeysPut, `{"document":"e30=","cutOff":["n2"]}`, func() error { _, err := a.PutKeys(ctx, []byte("{}"), "n2"); return err }},
		{adminapi.SubjectStatusGet, `{}`, func() error { _, err := a.Status(ctx); return err }},
		{adminapi.SubjectStatusConsumers, `{"limit":7}`, func() error { _, err := a.Consumers(ctx, 7); return err }},
		{adminapi.SubjectPolicyCheck, `{"files":[{"name":"p.yaml","text":"x"}]}`, func() error {
			_, err := a.PolicyCheck(ctx, admin.PolicyFile{Name: "p.yaml", Text: "x"})
			return err
		}},
		{adminapi.SubjectPolicyCanI, `{"verb":"publish","subject":"a"}`, func() error {
			_, err := a.CanI(ctx, admin.CanIRequest{Verb: "publish", Subject: "a"})
			return err
		}},
		{adminapi.SubjectPolicyExplain, `{"ref":"r"}`, func() error { _, err := a.Explain(ctx, "r"); return err }},
		{adminapi.SubjectDLQLs, `{"reason":"schema"}`, func() error {
			_, err := a.DLQList(ctx, admin.DLQQuery{DLQFilter: admin.DLQFilter{Reason: "schema"}})
			return err
		}},
		{adminapi.SubjectRefusalsLs, `{"after":3,"waitMs":30000}`, func() error {
			_, err := a.Refusals(ctx, admin.RefusalsQuery{After: 3}, time.Hour)
			return err
		}},
	}
	for _, tt := range tests {
		t.Run(tt.subject, func(t *testing.T) {
			if err := tt.call(); err != nil {
				t.Fatal(err)
			}
			if got != tt.subject || string(body) != tt.body {
				t.Errorf("%s %s, want %s %s", got, body, tt.subject, tt.body)
			}
		})
	}
}

func TestDLQShowPutsThePartsTogether(t *testing.T) {
	payload := bytes.Repeat([]byte{0, 255, 'x'}, 1000)
	a := admin.New(fakeCaller(func(_ string, request []byte) (any, error) {
		var r adminapi.DLQShowRequest
		if err := json.Unmarshal(request, &r); err != nil {
			return nil, err
		}
		part := adminapi.DLQShow{DeadLetter: adminapi.DeadLetter{Seq: r.Seq, Bytes: len(payload)}, Offset: r.Offset}
		if r.Offset == 0 {
			part.Header = []byte("NATS/1.0\r\n\r\n")
		}
		part.Payload = payload[r.Offset:min(r.Offset+700, len(payload))]
		return part, nil
	}))
	letter, err := a.DLQShow(context.Background(), 9)
	if err != nil || letter.Seq != 9 || !bytes.Equal(letter.Payload, payload) || string(letter.Header) != "NATS/1.0\r\n\r\n" {
		t.Fatalf("letter = %+v, %v", letter, err)
	}
}

// An answer that is wrong must end the loop.
func TestDLQShowRefusesWrongParts(t *testing.T) {
	for name, part := range map[string]adminapi.DLQShow{
		"no progress": {DeadLetter: adminapi.DeadLetter{Seq: 9, Bytes: 5}},
		"too much":    {DeadLetter: adminapi.DeadLetter{Seq: 9, Bytes: 1}, Payload: []byte("xx")},
		"other seq":   {DeadLetter: adminapi.DeadLetter{Seq: 8, Bytes: 1}, Payload: []byte("x")},
		"offset":      {DeadLetter: adminapi.DeadLetter{Seq: 9, Bytes: 9}, Payload: []byte("x"), Offset: 1},
	} {
		a := admin.New(fakeCaller(func(string, []byte) (any, error) { return part, nil }))
		if letter, err := a.DLQShow(context.Background(), 9); err == nil {
			t.Errorf("%s: %+v", name, letter)
		}
	}
}

func TestErrorsPassThrough(t *testing.T) {
	denied := &client.Error{Class: "permission-denied", Code: 40111}
	a := admin.New(fakeCaller(func(string, []byte) (any, error) { return nil, denied }))
	if _, err := a.Status(context.Background()); !errors.Is(err, client.ErrDenied) {
		t.Errorf("error = %v", err)
	}
	big := admin.PolicyFile{Name: "p", Text: strings.Repeat("x", admin.MaxBundleBytes)}
	if _, err := a.PolicyCheck(context.Background(), big); !errors.Is(err, client.ErrTooLarge) {
		t.Errorf("large bundle: %v", err)
	}
}

// The wait on the broker must end before the caller's deadline does.
func TestRefusalsWaitsWithinTheDeadline(t *testing.T) {
	var r adminapi.RefusalsLsRequest
	a := admin.New(fakeCaller(func(_ string, request []byte) (any, error) {
		r = adminapi.RefusalsLsRequest{}
		return adminapi.RefusalList{Cursor: 4}, json.Unmarshal(request, &r)
	}))
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	list, err := a.Refusals(ctx, admin.RefusalsQuery{WaitMs: 99999}, time.Minute)
	if err != nil || list.Cursor != 4 || r.WaitMs <= 0 || r.WaitMs > 2000 {
		t.Errorf("list = %+v, %v, wait %d ms", list, err, r.WaitMs)
	}
}

// Follow what is refused, and explain the first.
func ExampleAPI_Refusals() {
	ctx := context.Background()
	c, err := client.Connect(ctx, "", client.WithContext("dev"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	a := admin.New(c)
	list, err := a.Refusals(ctx, admin.RefusalsQuery{Subject: "orders.>"}, 10*time.Second)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, r := range list.Entries {
		fmt.Println(r.Time, r.Code, r.Subject, r.Principal, r.Count)
		if full, err := a.Explain(ctx, r.Ref); err == nil && full.Explain != nil {
			fmt.Println(full.Explain.Nearest, full.Explain.Fix)
		}
	}
}

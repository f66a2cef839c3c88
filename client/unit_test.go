package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing/keyring"
)

// Every class of the registry has its sentinel, and only that one matches.
func TestEveryCodeHasASentinel(t *testing.T) {
	for _, entry := range wire.Registry() {
		err := fmt.Errorf("wrapped: %w", fromRefusal("publish", wire.Refuse(entry.Code, "r", "d")))
		matched := 0
		for class, sentinel := range classErrors {
			if errors.Is(err, sentinel) {
				matched++
				if class != entry.Class {
					t.Errorf("%s matches %s", entry.Code, class)
				}
			}
		}
		if matched != 1 {
			t.Errorf("%s matches %d sentinels", entry.Code, matched)
		}
		want := entry.Class == wire.ClassRateLimited || entry.Class == wire.ClassUnavailable
		if Retryable(err) != want {
			t.Errorf("Retryable(%s) = %v", entry.Code, !want)
		}
	}
}

func TestFromAPI(t *testing.T) {
	newer := &wire.Problem{Type: problemType + "QuotaSpent", Title: "quota spent", Code: 40599, Class: wire.ClassRateLimited, RetryAfterMs: 7}
	tests := []struct {
		name string
		a    wire.APIError
		p    *wire.Problem
		want error
	}{
		{"our code without problem", wire.APIError{Code: 403, ErrCode: 40101}, nil, ErrDenied},
		{"a code of a newer broker", wire.APIError{Code: 429, ErrCode: 40599}, newer, ErrRateLimited},
		{"stream full", wire.APIError{Code: 503, ErrCode: 10077}, nil, ErrUnavailable},
		{"wrong last sequence", wire.APIError{Code: 400, ErrCode: 10071}, nil, ErrConflict},
		{"an earlier try is still on its way", wire.APIError{Code: 409, ErrCode: 10158}, nil, ErrUnavailable},
		{"the cluster changes its leader", wire.APIError{Code: 500, ErrCode: 10009}, nil, ErrUnavailable},
		{"message too large", wire.APIError{Code: 400, ErrCode: 10054}, nil, ErrTooLarge},
		{"no consumer", wire.APIError{Code: 404, ErrCode: 10014}, nil, ErrNotFound},
		{"odd status", wire.APIError{Code: 418, ErrCode: 1}, nil, ErrInternal},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := fromAPI("publish", tt.a, tt.p); !errors.Is(err, tt.want) {
				t.Errorf("error = %v, want %v", err, tt.want)
			}
		})
	}
	e := fromAPI("publish", wire.APIError{}, newer)
	if e.Name != "QuotaSpent" || e.RetryAfter != 7*time.Millisecond {
		t.Errorf("newer = %+v", e)
	}
}

func TestErrorTextIsOneLine(t *testing.T) {
	r := wire.Refuse(wire.CodePublishDenied, "acl", "")
	r.Subject, r.Principal, r.Ref = "a.b\r\nx", "shop/x", "r1"
	text := fromRefusal("publish", r).Error()
	want := `client: publish: 40101 PublishDenied: no publish grant covers this subject (rule acl) subject="a.b\r\nx" principal=shop/x ref=r1`
	if text != want {
		t.Errorf("got  %s\nwant %s", text, want)
	}
}

func TestFromPermission(t *testing.T) {
	err := fmt.Errorf("%w: Permissions Violation for Publish to \"orders.x\" (40105 SourceDenied, ref abc)", nats.ErrPermissionViolation)
	e := fromPermission("", "", err)
	if e.Code != 40105 || e.Ref != "abc" || e.Subject != "orders.x" || !errors.Is(e, ErrDenied) || !errors.Is(e, nats.ErrPermissionViolation) {
		t.Errorf("error = %+v", e)
	}
}

func TestStatusError(t *testing.T) {
	if err := statusError("400", "40108 ConsumerNotOwned", nil); !errors.Is(err, ErrDenied) {
		t.Errorf("code in the description: %v", err)
	}
	body := wire.Refuse(wire.CodeFilterDenied, "", "").Answer("", false)
	if err := statusError("", "", body); !errors.Is(err, ErrDenied) {
		t.Errorf("answer as body: %v", err)
	}
	if err := statusError("503", "", nil); !errors.Is(err, ErrUnavailable) {
		t.Errorf("503: %v", err)
	}
}

func TestTermBody(t *testing.T) {
	for in, want := range map[string]string{
		"": "+TERM", "  ": "+TERM", "a\r\nb": "+TERM a  b", strings.Repeat("\u00e9", 200): "+TERM " + strings.Repeat("\u00e9", 128),
	} {
		if got := termBody(in); got != want {
			t.Errorf("termBody(%q) = %q", in, got)
		}
	}
}

func TestNewIDIsOrderedAndUnique(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		last := ""
		for range 1000 {
			id := NewID()
			if len(id) != 36 || id[14] != '7' || !strings.ContainsRune("89ab", rune(id[19])) || id <= last {
				t.Fatalf("id %q after %q", id, last)
			}
			last = id
			<-time.After(time.Millisecond) // fake time
		}
	})
}

func TestCloudEventRoundTrip(t *testing.T) {
	in := &Event{
		ID: "1", Source: "/a", Type: "t", Subject: "s", DataContentType: ContentTypeJSON, DataSchema: "urn:x",
		Time: time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC), Extensions: map[string]string{"region": "north \u00e9"}, Data: []byte(`{"a":1}`),
	}
	ce, err := in.ToCloudEvent()
	if err != nil {
		t.Fatal(err)
	}
	if ce.ID() != "1" || ce.Subject() != "s" || ce.Extensions()["region"] != "north \u00e9" || ce.Validate() != nil {
		t.Errorf("cloud event = %v", ce)
	}
	out, err := FromCloudEvent(ce)
	if err != nil {
		t.Fatal(err)
	}
	if out.ID != in.ID || out.Source != in.Source || out.Type != in.Type || out.Subject != in.Subject ||
		out.DataContentType != in.DataContentType || out.DataSchema != in.DataSchema || !out.Time.Equal(in.Time) ||
		!maps.Equal(out.Extensions, in.Extensions) || string(out.Data) != string(in.Data) {
		t.Errorf("got %+v, want %+v", out, in)
	}
	if _, err := (&Event{Type: "t", ID: "a\x00"}).ToCloudEvent(); !errors.Is(err, ErrMalformed) {
		t.Errorf("incomplete event: %v", err)
	}
	if _, err := FromCloudEvent(cloudevents.New("0.3")); !errors.Is(err, ErrMalformed) {
		t.Errorf("version 0.3: %v", err)
	}
}

func TestTimeGoesOnByteForByte(t *testing.T) {
	const text = "2026-01-02T03:04:05.120+02:00"
	when, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		t.Fatal(err)
	}
	e := Event{Time: when, timeText: text}
	if got := e.timeString(); got != text {
		t.Errorf("time = %s", got)
	}
	e.Time = e.Time.Add(time.Second)
	if got := e.timeString(); got != "2026-01-02T01:04:06.12Z" {
		t.Errorf("changed time = %s", got)
	}
}

func TestDecodeManyHeaders(t *testing.T) {
	h := nats.Header{"ce-id": {"1"}, "ce-source": {"/"}, "ce-type": {"t"}, "Nats-Msg-Id": {"x", "y"}}
	for i := range 40 {
		h[fmt.Sprintf("ce-x%02d", i)] = []string{"v%20w"}
	}
	var d decoder
	rec, err := d.decode(&nats.Msg{Header: h})
	if err != nil || len(rec.Ext) != 40 || string(rec.Get("x39")) != "v w" {
		t.Fatalf("record = %+v, %v", rec, err)
	}
}

func TestKeyringRefresh(t *testing.T) {
	rootSeed, root := testSeed(t, nkeys.PrefixByteOperator)
	synctest.Test(t, func(t *testing.T) {
		document := func(version uint64, life time.Duration) []byte {
			now := time.Now()
			r, err := keyring.New(version, now.Add(-time.Hour), now.Add(life), nil)
			if err != nil {
				t.Fatal(err)
			}
			doc, err := r.Sign(rootSeed)
			if err != nil {
				t.Fatal(err)
			}
			return doc
		}
		doc, fetches := document(2, time.Hour), 0
		var failed []error
		k := newRingKeeper(root, func(context.Context) ([]byte, error) { fetches++; return doc, nil }, func(err error) { failed = append(failed, err) })
		ctx, cancel := context.WithCancel(t.Context())
		if err := k.refresh(ctx); err != nil {
			t.Fatalf("refresh: %v", err)
		}
		if doc = document(1, time.Hour); !errors.Is(k.refresh(ctx), keyring.ErrRollback) || k.current().Version() != 2 {
			t.Error("an older keyring was taken")
		}
		// An unknown key asks for a refresh, but not more often than allowed.
		doc = document(3, time.Hour)
		if k.settle(ctx, time.Now()) {
			t.Error("settled right after a refresh")
		}
		<-time.After(minKeyringInterval)
		if !k.settle(ctx, time.Now()) || k.current().Version() != 3 {
			t.Error("not settled by a refresh")
		}
		before := fetches
		if !k.settle(ctx, time.Now().Add(-time.Minute)) || fetches != before {
			t.Error("an older event needs no refresh")
		}
		// However many unknown keys there are, they cost one refresh in the interval.
		before = fetches
		for range 1000 {
			k.settle(ctx, time.Now())
		}
		if fetches > before+1 {
			t.Errorf("%d refreshes for 1000 unknown keys", fetches-before)
		}
		// What comes by itself is judged in the same way.
		for name, tt := range map[string]struct {
			doc  []byte
			want error
		}{
			"older":      {document(2, time.Hour), keyring.ErrRollback},
			"expired":    {document(9, -time.Hour+time.Second), keyring.ErrExpired},
			"no keyring": {[]byte("{}"), keyring.ErrMalformed},
			"the same":   {doc, nil},
		} {
			if err := k.offer(ctx, tt.doc); !errors.Is(err, tt.want) || k.current().Version() != 3 {
				t.Errorf("%s: %v, version %d", name, err, k.current().Version())
			}
		}
		// The worker refreshes before the ring expires.
		done := make(chan struct{})
		doc = document(4, 2*time.Hour)
		go func() { k.run(ctx, time.Second); close(done) }()
		<-time.After(45 * time.Minute)
		if k.current().Version() != 4 {
			t.Errorf("version %d", k.current().Version())
		}
		cancel()
		<-done
		if len(failed) != 0 {
			t.Errorf("errors: %v", failed)
		}
	})
}

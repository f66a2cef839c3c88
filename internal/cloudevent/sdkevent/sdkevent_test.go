package sdkevent

import (
	"encoding/json"
	"errors"
	"net/url"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"pgregory.net/rapid"

	"github.com/signetbus/signet/internal/cloudevent"
)

func sample() *cloudevent.Event {
	e := &cloudevent.Event{
		ID: []byte("a1"), Source: []byte("/shop/checkout"), Type: []byte("order.created"),
		ContentType: []byte("application/json; charset=utf-8"), DataSchema: []byte("https://example.com/s/1"),
		Subject: []byte("Euro € 17"), Time: []byte("2026-11-22T13:24:51.5Z"),
		Data: []byte("{ \"n\" : 1, \"s\": \"<&>\u2028\" }\n"),
	}
	e.SetExt([]byte("partitionkey"), []byte("straße"))
	e.SetExt([]byte("attestation"), []byte("AAEC_-"))
	e.SetExt([]byte("sequence"), []byte("0017"))
	return e
}

func TestRoundTrip(t *testing.T) {
	e := sample()
	out, err := ToSDK(e)
	if err != nil {
		t.Fatal(err)
	}
	if err := out.Validate(); err != nil {
		t.Fatalf("the SDK refuses its own event: %v", err)
	}
	back, err := FromSDK(&out)
	if err != nil || !back.Equal(e) {
		t.Fatalf("round trip = %s, %v", cloudevent.AppendJSON(nil, back), err)
	}
	clear(e.Data)
	clear(e.ID)
	if string(out.Data()) != string(sample().Data) || out.ID() != "a1" {
		t.Error("the SDK event shares memory with the record")
	}
}

// TestStructuredInterop passes the event through the SDK's own JSON in both
// directions.
func TestStructuredInterop(t *testing.T) {
	e := sample()
	out, err := ToSDK(e)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(out)
	if err != nil {
		t.Fatal(err)
	}
	var ours cloudevent.Event
	if err := ours.FromJSON(text, nil); err != nil || !ours.Equal(e) {
		t.Fatalf("we read %s from %s: %v", cloudevent.AppendJSON(nil, &ours), text, err)
	}
	var theirs event.Event
	if err := json.Unmarshal(cloudevent.AppendJSON(nil, e), &theirs); err != nil {
		t.Fatal(err)
	}
	back, err := FromSDK(&theirs)
	if err != nil || !back.Equal(e) {
		t.Fatalf("the SDK read %s, %v", cloudevent.AppendJSON(nil, back), err)
	}
}

func TestToSDKRefusesWhatItWouldChange(t *testing.T) {
	for name, change := range map[string]func(*cloudevent.Event){
		"source upper-case host":  func(e *cloudevent.Event) { e.Source = []byte("HTTP://Example.com/A") },
		"source empty fragment":   func(e *cloudevent.Event) { e.Source = []byte("http://h/#") },
		"source not a URI":        func(e *cloudevent.Event) { e.Source = []byte("http://[::1") },
		"id with a space":         func(e *cloudevent.Event) { e.ID = []byte("a ") },
		"subject with a space":    func(e *cloudevent.Event) { e.Subject = []byte(" a") },
		"zero time":               func(e *cloudevent.Event) { e.Time = []byte("0001-01-01T00:00:00Z") },
		"bad time":                func(e *cloudevent.Event) { e.Time = []byte("yesterday") },
		"extension named as core": func(e *cloudevent.Event) { e.SetExt([]byte("id"), []byte("x")) },
	} {
		e := sample()
		change(e)
		if out, err := ToSDK(e); !errors.Is(err, ErrLossy) {
			t.Errorf("%s: ToSDK = %v, %v; want ErrLossy", name, out, err)
		}
	}
}

func TestFromSDKExtensions(t *testing.T) {
	in := event.New()
	in.SetID("1")
	in.SetSource("/s")
	in.SetType("t")
	in.SetTime(time.Date(2026, 11, 22, 14, 0, 0, 120_000_000, time.FixedZone("x", 3600)))
	u, _ := url.Parse("urn:x")
	for name, v := range map[string]any{
		"abool": true, "anint": int32(-7), "bytes": []byte{1, 255}, "auri": u, "atime": time.Unix(0, 0), "text": "x", "empty": "",
	} {
		in.SetExtension(name, v)
	}
	e, err := FromSDK(&in)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"abool": "true", "anint": "-7", "bytes": "Af8=", "auri": "urn:x", "atime": "1970-01-01T00:00:00Z", "text": "x", "empty": "",
		"time": "2026-11-22T13:00:00.12Z",
	} {
		if got := string(e.Get(name)); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
}

func TestFromSDKErrors(t *testing.T) {
	fresh := func() event.Event {
		in := event.New()
		in.SetID("1")
		in.SetSource("/s")
		in.SetType("t")
		return in
	}
	tests := []struct {
		name   string
		change func(*event.Event)
		err    error
	}{
		{"good", func(*event.Event) {}, nil},
		{"no context", func(e *event.Event) { e.Context = nil }, ErrInvalid},
		{"version 0.3", func(e *event.Event) { e.SetSpecVersion("0.3") }, ErrInvalid},
		{"setter failed", func(e *event.Event) { e.SetExtension("a-b", "x") }, ErrInvalid},
		{"no type", func(e *event.Event) { e.Context = &event.EventContextV1{ID: "1"} }, cloudevent.ErrMissing},
		{"line end in the id", func(e *event.Event) { e.SetID("a\r\nb") }, cloudevent.ErrAttribute},
		{"extension data", func(e *event.Event) { e.SetExtension("data", "x") }, cloudevent.ErrAttribute},
		{"extension of no CloudEvents type", func(e *event.Event) {
			e.Context.(*event.EventContextV1).Extensions = map[string]any{"x": struct{}{}}
		}, ErrInvalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := fresh()
			tt.change(&in)
			if _, err := FromSDK(&in); !errors.Is(err, tt.err) {
				t.Errorf("FromSDK = %v, want %v", err, tt.err)
			}
		})
	}
	if _, err := FromSDK(nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("FromSDK(nil) = %v", err)
	}
}

// TestRoundTripProperty: what ToSDK lets through comes back the same, time to the
// instant.
func TestRoundTripProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringOfN(rapid.RuneFrom([]rune("aZ0-_.:/%é😀 ~")), 1, 12, -1)
		e := &cloudevent.Event{
			ID:     []byte(text.Draw(t, "id")),
			Source: []byte("/" + rapid.StringMatching(`[a-zA-Z0-9._~/:@!$&'()*+,;=-]{0,12}`).Draw(t, "source")),
			Type:   []byte(text.Draw(t, "type")),
			Data:   rapid.SliceOf(rapid.Byte()).Draw(t, "data"),
		}
		for range rapid.IntRange(0, 4).Draw(t, "n") {
			e.SetExt([]byte(rapid.StringMatching(`x[a-z0-9]{0,5}`).Draw(t, "name")), []byte(text.Draw(t, "value")))
		}
		if e.Validate() != nil {
			return
		}
		out, err := ToSDK(e)
		if errors.Is(err, ErrLossy) {
			return
		}
		back, backErr := FromSDK(&out)
		if err != nil || backErr != nil || !back.Equal(e) {
			t.Fatalf("%s: %v, %v", cloudevent.AppendJSON(nil, e), err, backErr)
		}
	})
}

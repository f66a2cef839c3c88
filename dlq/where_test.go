package dlq

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"
)

const opened = `{"action":"opened","n":1,"ok":true,"none":null,"list":["a",{"b/c":"d~"}],"s":"1","":{"":"e"}}`

func TestWhere(t *testing.T) {
	for _, tt := range []struct {
		where string
		want  bool
	}{
		{"/action", true},
		{"/action=opened", true},
		{"/action=closed", false},
		{"/action!=closed", true},
		{"/action!=opened", false},
		{"/gone", false},
		{"/gone=", false},
		{"/gone!=x", true},
		{"/n=1", true},
		{"/n=1.0", false}, // as it is written
		{"/n!=2", true},
		{"/s=1", true},
		{"/ok=true", true},
		{"/ok=false", false},
		{"/none=null", true},
		{"/none", true},
		{"/list", true},
		{"/list=a", false},
		{"/list!=a", true},
		{"/list/0=a", true},
		{"/list/00=a", false},
		{"/list/-", false},
		{"/list/2", false},
		{"/list/1/b~1c=d~", true},
		{"//=e", true},
		{"/action/x", false},
	} {
		w, err := ParseWhere(tt.where)
		if err != nil {
			t.Errorf("%s: %v", tt.where, err)
			continue
		}
		if got := whereAll([]Where{w}, []byte(opened)); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.where, got, tt.want)
		}
		if w.String() != tt.where {
			t.Errorf("%s: is said to be %s", tt.where, w)
		}
	}
	w, _ := ParseWhere("/gone!=x")
	for _, no := range []string{"", "{", `{} {}`, "\xff", `{"a":1}x`} {
		if whereAll([]Where{w}, []byte(no)) {
			t.Errorf("%q is no JSON", no)
		}
	}
	if whereAll([]Where{{}}, []byte(opened)) {
		t.Error("the zero condition holds")
	}
}

func TestBadWhere(t *testing.T) {
	for _, bad := range []string{"", "action=opened", "=x", "!=x", "/a~=x", "/a~2", "/" + strings.Repeat("a", maxWhere), "/\xff"} {
		if _, err := ParseWhere(bad); !errors.Is(err, ErrWhere) {
			t.Errorf("%.20q: %v", bad, err)
		}
	}
}

func TestFilterByTypeAndPayload(t *testing.T) {
	r := sample()
	r.Header, r.Payload = []byte("NATS/1.0\r\nce-specversion: 1.0\r\nce-id: 1\r\nce-type: com.github.push\r\n\r\n"), []byte(opened)
	where := func(s string) []Where {
		w, err := ParseWhere(s)
		if err != nil {
			t.Fatal(err)
		}
		return []Where{w}
	}
	structured := sample()
	structured.Header = []byte("NATS/1.0\r\ncontent-type: application/cloudevents+json\r\n\r\n")
	structured.Payload = []byte(`{"specversion":"1.0","id":"1","source":"/x","type":"com.github.push","data":{"a":1}}`)
	for _, tt := range []struct {
		name string
		f    Filter
		r    *Record
		want bool
	}{
		{"type", Filter{Type: "com.github.push"}, r, true},
		{"start of the type", Filter{Type: "com.github.*"}, r, true},
		{"another type", Filter{Type: "com.github"}, r, false},
		{"type of a structured event", Filter{Type: "com.github.push"}, structured, true},
		{"payload of a structured event", Filter{Where: where("/data/a=1")}, structured, true},
		{"payload", Filter{Where: where("/action=opened")}, r, true},
		{"another payload", Filter{Where: where("/action=closed")}, r, false},
		{"no event", Filter{Type: "*"}, sample(), true},
	} {
		if err := tt.f.Validate(); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if got := tt.f.Match(tt.r); got != tt.want {
			t.Errorf("%s: got %v", tt.name, got)
		}
	}
	if f := (Filter{Where: make([]Where, MaxWhere+1)}); !errors.Is(f.Validate(), ErrRecord) {
		t.Error("too many conditions")
	}
}

// TestFailed: what failed again in a retry queue is still the event of its stream, and what
// a client sent says nothing.
func TestFailed(t *testing.T) {
	block := []byte("NATS/1.0\r\nSignet-Redrive-Count: 2\r\nSignet-Redrive-Stream: ORDERS\r\nSignet-Redrive-Consumer: billing\r\n" +
		"Signet-Redrive-Sequence: 7\r\nSignet-Redrive-Subject: orders.1\r\n\r\n")
	r := &Record{Stage: StageConsumer, Time: time.Now(), Origin: Origin{"RETRY", 3, "6_ORDERS_billing"}, NATSSubject: "$SIGNET.RETRY.ORDERS.billing", Header: block}
	want := Failed{Origin{"ORDERS", 7, "billing"}, "orders.1", 2}
	if got := FailedOf(nil, r); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := FailedOf(map[string][]string{headerRedrives: {"4"}}, r); got.Redrives != 4 {
		t.Errorf("%d redrives", got.Redrives)
	}
	if got := FailedOf(map[string][]string{headerRedrives: {"-1"}}, r); got.Redrives != math.MaxInt32 {
		t.Errorf("a count that is none: %d", got.Redrives)
	}
	r.Stage = StageIngress
	if got := FailedOf(map[string][]string{headerRedrives: {"4"}}, r); got.Redrives != 0 || got.Stream != "RETRY" {
		t.Errorf("headers of a client are believed: %+v", got)
	}
}

func FuzzWhere(f *testing.F) {
	for _, s := range []string{"/action=opened", "/a!=1", "/a/0/~0~1", "//", "x", "/~"} {
		f.Add(s, opened)
	}
	f.Fuzz(func(t *testing.T, text, payload string) {
		w, err := ParseWhere(text)
		if err != nil {
			if !errors.Is(err, ErrWhere) {
				t.Fatalf("%v", err)
			}
			return
		}
		again, err := ParseWhere(w.String())
		if err != nil || again.op != w.op || again.want != w.want || strings.Join(again.path, "\x00") != strings.Join(w.path, "\x00") {
			t.Fatalf("%q is read in two ways", text)
		}
		is := whereAll([]Where{w}, []byte(payload))
		if w.op == "" {
			return
		}
		not := w
		if not.op = "!="; w.op == "!=" {
			not.op = "="
		}
		isNot := whereAll([]Where{not}, []byte(payload))
		if is && isNot {
			t.Fatalf("%q and its opposite hold", text)
		}
	})
}

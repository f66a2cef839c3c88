package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/signetbus/signet/internal/auditlog"
	"github.com/signetbus/signet/internal/wire"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		keepUntilKilled(dir)
	}
	goleak.VerifyTestMain(m)
}

func refusal(principal, rule, subject string) *wire.Refusal {
	return &wire.Refusal{
		Code: wire.CodePublishDenied, Rule: rule, Principal: principal, Subject: subject, Detail: "no",
		Explain: &wire.Explanation{File: "p.yaml", Line: 7},
	}
}

func lines(t *testing.T, log *bytes.Buffer) (out []map[string]any) {
	t.Helper()
	dec := json.NewDecoder(log)
	for dec.More() {
		var m map[string]any
		if err := dec.Decode(&m); err != nil {
			t.Fatal(err)
		}
		out = append(out, m)
	}
	return out
}

func TestEqualRefusalsAreOneLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		trail := New(Config{Log: zerolog.New(&log)})
		if err := trail.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := trail.Start(t.Context()); !errors.Is(err, ErrStarted) {
			t.Errorf("second Start: %v, want ErrStarted", err)
		}
		for i := range 1000 {
			trail.Refused(refusal("shop/a", "deny", fmt.Sprint("orders.", i)), Origin{Class: "event"})
		}
		trail.Refused(refusal("shop/b", "deny", "orders.1"), Origin{Class: "event"})
		<-time.After(Window + time.Millisecond) // fake time
		synctest.Wait()
		got := lines(t, &log)
		if len(got) != 2 || got[0]["count"] != 1000.0 || got[1]["count"] != 1.0 {
			t.Fatalf("got %d lines, %v", len(got), got)
		}
		for key, want := range map[string]any{"event": "refused", "principal": "shop/a", "rule": "deny", "subject": "orders.0", "code": 40101.0} {
			if got[0][key] != want {
				t.Errorf("%s = %v, want %v", key, got[0][key], want)
			}
		}
		trail.Refused(refusal("shop/a", "deny", "x"), Origin{})
		if err := trail.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		<-trail.Done()
		if got := lines(t, &log); len(got) != 1 {
			t.Errorf("Shutdown wrote %d lines, want the one that was gathered", len(got))
		}
		if n := trail.Counts()[wire.CodePublishDenied]; n != 1002 {
			t.Errorf("counted %d, want 1002", n)
		}
	})
}

// Logins that fail from several addresses are not one line: who tries it from where must
// not hide behind who tries it most.
func TestRefusedLoginsAreToldByAddress(t *testing.T) {
	var got []auditlog.Entry
	trail := New(Config{Record: func(e auditlog.Entry) { got = append(got, e) }})
	for i := range 30 {
		r := &wire.Refusal{Code: wire.CodeAuthRequired, Rule: "connect"}
		trail.Refused(r, Origin{Verb: verbConnect, Remote: fmt.Sprintf("192.0.2.%d:%d", 1+i%3, 4000+i)})
	}
	trail.Flush()
	if len(got) != 3 {
		t.Fatalf("%d records, want one for each address: %+v", len(got), got)
	}
	for i, e := range got {
		if e.Kind != auditlog.KindLogin || e.Count != 10 || e.Remote != fmt.Sprintf("192.0.2.%d:%d", 1+i, 4000+i) {
			t.Errorf("%+v", e)
		}
	}
}

func TestSampling(t *testing.T) {
	now := time.Unix(1000, 0)
	trail := New(Config{Now: func() time.Time { return now }, SamplePerMinute: 3, Ring: 8})
	refs := map[string]bool{}
	var last string
	for i := range 100 {
		r := refusal("shop/a", "deny", fmt.Sprint("s.", i))
		trail.Refused(r, Origin{})
		if r.Ref == "" || refs[r.Ref] {
			t.Fatalf("ref %q is empty or repeated", r.Ref)
		}
		refs[r.Ref] = true
		e, ok := trail.Lookup(r.Ref)
		if !ok || e.Explain == nil || e.Explain.Line != 7 {
			t.Fatalf("Lookup(%s) = %+v, %v", r.Ref, e, ok)
		}
		last = r.Ref
	}
	if got, _ := trail.List(0, Filter{}, 0); len(got) != 3 || got[2].Count != 98 {
		t.Fatalf("got %d entries, last counts %d; want 3, 98", len(got), got[len(got)-1].Count)
	}
	now = now.Add(time.Minute)
	trail.Refused(refusal("shop/a", "deny", "later"), Origin{})
	if got, _ := trail.List(0, Filter{}, 0); len(got) != 4 {
		t.Errorf("after a minute: %d entries, want 4", len(got))
	}
	for i := range 20 { // other rules push the sample out of the ring
		trail.Refused(refusal("shop/a", fmt.Sprint("rule", i), "x"), Origin{})
	}
	if _, ok := trail.Lookup(last); ok {
		t.Error("an entry outlived the ring")
	}
	for range 5 {
		r := refusal("shop/a", "deny", "again")
		trail.Refused(r, Origin{})
		if _, ok := trail.Lookup(r.Ref); !ok {
			t.Error("a sampled-out refusal has no explanation after the ring went round")
		}
	}
	if _, ok := trail.Lookup("nobody"); ok {
		t.Error("an unknown ref is found")
	}
}

func TestMemoryIsBounded(t *testing.T) {
	trail := New(Config{MaxKeys: 16, Ring: 16})
	for i := range 10_000 {
		trail.Refused(refusal(fmt.Sprint("shop/", i), "deny", strings.Repeat("s", 5000)), Origin{Class: fmt.Sprint(i)})
	}
	if len(trail.samples) > 17 || len(trail.window) > 17 || len(trail.ring) > 16 || len(trail.byRef) > 16 {
		t.Errorf("samples %d window %d ring %d refs %d, want them bounded", len(trail.samples), len(trail.window), len(trail.ring), len(trail.byRef))
	}
	if e, _ := trail.List(0, Filter{}, 1); len(e[0].Subject) > 512 {
		t.Errorf("a subject of %d bytes is kept", len(e[0].Subject))
	}
}

func TestListAndTail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		trail := New(Config{Ring: 4})
		for i := range 6 {
			trail.Refused(refusal("shop/a", fmt.Sprint("rule", i), "orders.1"), Origin{Tenant: "shop"})
		}
		got, cursor := trail.List(0, Filter{}, 0)
		if len(got) != 4 || got[0].Cursor != 3 || cursor != 6 || trail.Cursor() != 6 {
			t.Fatalf("got %d entries from %d, cursor %d; want 4 from 3, 6", len(got), got[0].Cursor, cursor)
		}
		if got, cursor = trail.List(3, Filter{}, 2); len(got) != 2 || cursor != 5 {
			t.Errorf("page: %d entries, cursor %d", len(got), cursor)
		}
		if got, _ = trail.List(999, Filter{}, 0); len(got) != 4 {
			t.Errorf("a cursor of an earlier run: %d entries, want 4", len(got))
		}
		for _, f := range []Filter{{Rule: "x"}, {Code: wire.CodeInternal}, {Class: wire.ClassInternal}, {Tenant: "x"}, {Principal: "x"}, {Subject: "x"}} {
			if got, _ := trail.List(0, f, 0); len(got) != 0 {
				t.Errorf("filter %+v selects %d", f, len(got))
			}
		}
		if got, _ := trail.List(0, Filter{Class: wire.ClassPermissionDenied, Subject: "orders.*"}, 0); len(got) != 4 {
			t.Errorf("filter selects %d, want 4", len(got))
		}
		var wg sync.WaitGroup
		var tailed []Entry
		wg.Go(func() { tailed, _ = trail.Tail(t.Context(), 6, Filter{Rule: "wanted"}, 10) })
		synctest.Wait()
		trail.Refused(refusal("shop/a", "other", "s"), Origin{})
		synctest.Wait()
		trail.Refused(refusal("shop/a", "wanted", "s"), Origin{})
		wg.Wait()
		if len(tailed) != 1 || tailed[0].Rule != "wanted" {
			t.Errorf("Tail = %+v", tailed)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if got, cursor := trail.Tail(ctx, 8, Filter{}, 0); got != nil || cursor != 8 {
			t.Errorf("Tail at its end = %v, %d", got, cursor)
		}
	})
}

func TestEveryCodeHasASlot(t *testing.T) {
	if n := len(wire.Registry()); n > len(counters{}.slots) {
		t.Fatalf("%d codes, %d slots", n, len(counters{}.slots))
	}
	trail := New(Config{})
	for _, e := range wire.Registry() {
		trail.Refused(&wire.Refusal{Code: e.Code}, Origin{})
		if trail.Counts()[e.Code] != 1 {
			t.Errorf("%s is not counted", e.Name)
		}
	}
	trail.Refused(&wire.Refusal{Code: 1}, Origin{})
	if trail.Counts()[wire.CodeInternal] != 2 {
		t.Error("an unknown code is not counted as internal")
	}
	if err := trail.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

func BenchmarkRefused(b *testing.B) {
	trail := New(Config{})
	r := refusal("shop/a", "deny", "orders.1")
	b.ReportAllocs()
	for b.Loop() {
		r.Ref = ""
		trail.Refused(r, Origin{Tenant: "shop", Class: "event"})
	}
}

func TestCountsOfTenants(t *testing.T) {
	tr := New(Config{MaxKeys: 2})
	for range 3 {
		tr.Refused(refusal("a/x", "r", "s"), Origin{Tenant: "a"})
	}
	tr.Refused(refusal("b/x", "r", "s"), Origin{Tenant: "b"})
	tr.Refused(refusal("c/x", "r", "s"), Origin{Tenant: "c"}) // over the bound
	tr.Refused(&wire.Refusal{Code: 1}, Origin{Tenant: "b"})
	if n := tr.CountsOf("a"); len(n) != 1 || n[wire.CodePublishDenied] != 3 {
		t.Errorf("a: %v", n)
	}
	if n := tr.CountsOf("b"); n[wire.CodePublishDenied] != 1 || n[wire.CodeInternal] != 1 {
		t.Errorf("b: %v", n)
	}
	if n := tr.CountsOf("c"); len(n) != 0 {
		t.Errorf("c: %v", n)
	}
	if n := tr.Counts()[wire.CodePublishDenied]; n != 5 {
		t.Errorf("all: %d", n)
	}
}

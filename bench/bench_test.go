package bench

import (
	"context"
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/broker/acl"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/schema"
	"github.com/signetbus/signet/schema/jsonschema"
)

func TestOrderHasItsSizeAndKeepsTheSchema(t *testing.T) {
	b, err := policy.Parse("policy.yaml", withoutKeys(t, pairPolicy))
	if err != nil {
		t.Fatal(err)
	}
	set, err := policy.Compile(b)
	if err != nil {
		t.Fatal(err)
	}
	d := set.Tenants()[0].Schemas[0]
	v, err := jsonschema.New(schema.DefaultLimits()).Compile(context.Background(), schema.Document{Name: d.Name, Version: d.Version, Format: d.Format, Text: d.Text})
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{256, 2048} {
		o := order(size)
		if len(o) != size || !json.Valid(o) {
			t.Errorf("order(%d) has %d bytes, or is not JSON", size, len(o))
		}
		if got := v.Validate([]byte("application/json"), o); !got.OK {
			t.Errorf("order(%d): %+v", size, got)
		}
	}
}

// withoutKeys is a policy with a new key for each place of one.
func withoutKeys(t *testing.T, text string) []byte {
	t.Helper()
	return regexp.MustCompile(`\{\{nkey "\w+"\}\}`).ReplaceAllFunc([]byte(text), func([]byte) []byte {
		pair, err := nkeys.CreateUser()
		if err != nil {
			t.Fatal(err)
		}
		public, err := pair.PublicKey()
		if err != nil {
			t.Fatal(err)
		}
		return []byte(public)
	})
}

// Every flood of the workloads on fairness is refused for what its name says: a flood that
// is let in would measure something else.
func TestFloodsFitThePolicy(t *testing.T) {
	b, err := policy.Parse("policy.yaml", withoutKeys(t, pairPolicy))
	if err != nil {
		t.Fatal(err)
	}
	set, err := policy.Compile(b)
	if err != nil {
		t.Fatal(err)
	}
	p := set.Principal("bench", Flooder)
	for _, f := range floods {
		granted := acl.Publish(p, f.subject).Allowed
		rule := p.Tenant.Binding(f.subject)
		ok := false
		switch {
		case strings.HasSuffix(f.name, "grant"):
			ok = !granted
		case strings.HasSuffix(f.name, "payloads"):
			ok = granted && rule != nil && int(rule.MaxPayload) < len(f.payload)
		case strings.HasSuffix(f.name, "schema"):
			ok = granted && rule != nil && rule.Schema != nil
		default:
			for i := range p.Limits {
				ok = ok || granted && p.Limits[i].Name == "flooded" && p.Limits[i].Applies(f.subject)
			}
		}
		if !ok {
			t.Errorf("%s: it is not", f.name)
		}
	}
}

// Every number of streams of the curve fits a policy, with a subject for each that is
// published on.
func TestCurvePolicy(t *testing.T) {
	for _, n := range FullCurve().Streams {
		b, err := policy.Parse("policy.yaml", withoutKeys(t, curvePolicy(n)))
		if err != nil {
			t.Fatal(err)
		}
		set, err := policy.Compile(b)
		if err != nil {
			t.Fatal(err)
		}
		if got := len(set.Tenants()[0].Streams); got != n {
			t.Errorf("%d streams, want %d", got, n)
		}
	}
}

func TestMedian(t *testing.T) {
	a, b, c := &Figure{Events: 3, Elapsed: 1}, &Figure{Events: 1, Elapsed: 1}, &Figure{Events: 2, Elapsed: 1}
	if got := median([]*Figure{a, b, c}); got != c {
		t.Errorf("the median has %d events, want 2", got.Events)
	}
}

func TestSpread(t *testing.T) {
	if got, want := spread([]float64{3, 1, 2}), (Spread{Median: 2, Min: 1, Max: 3}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if got, want := spread([]float64{4, 1}), (Spread{Median: 2.5, Min: 1, Max: 4}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

// A miss of the budget is news, a miss of a target fails a strict run.
func TestMissed(t *testing.T) {
	if Missed([]Check{{OK: true, Strict: true}, {OK: false}}) || !Missed([]Check{{OK: false, Strict: true}}) {
		t.Error("only strict checks count")
	}
}

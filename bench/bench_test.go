package bench

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/schema"
	"github.com/signetbus/signet/schema/jsonschema"
)

func TestOrderHasItsSizeAndKeepsTheSchema(t *testing.T) {
	b, err := policy.Parse("policy.yaml", []byte(strings.ReplaceAll(Policy, `{{nkey "bench"}}`, "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4")))
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

// Every number of streams of the curve fits a policy, with a subject for each that is
// published on.
func TestCurvePolicy(t *testing.T) {
	for _, n := range FullCurve().Streams {
		b, err := policy.Parse("policy.yaml", []byte(strings.ReplaceAll(curvePolicy(n), `{{nkey "bench"}}`, "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4")))
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

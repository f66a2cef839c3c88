package githubwebhooks

import (
	"encoding/json"
	"testing"
)

func TestData(t *testing.T) {
	n := 0
	kinds := map[string]bool{}
	for d := range Deliveries() {
		n++
		kinds[d.Event] = true
		if Definition(d.Event) == "" {
			t.Errorf("%s: no definition", d.Event)
		}
		if !json.Valid(d.Payload) || len(d.Payload) < 500 {
			t.Errorf("%s/%s: payload of %d bytes", d.Event, d.Action, len(d.Payload))
		}
	}
	if n != 329 || len(kinds) != 58 || len(definitions()) != 344 {
		t.Errorf("%d deliveries of %d kinds, %d definitions; want 329, 58, 344", n, len(kinds), len(definitions()))
	}
	if got := Definition("no_such"); got != "" {
		t.Errorf("Definition(no_such) = %q", got)
	}
}

func TestDeliveriesStops(t *testing.T) {
	for range Deliveries() {
		break
	}
}

package client

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// The text of time is signed as it came: writing it anew would break signatures.
func TestMarshalJSONKeepsTheTextOfTime(t *testing.T) {
	e := &Event{
		ID: "1", Source: "/s", Type: "t", Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), timeText: "2026-01-02T03:04:05.000Z",
		Extensions: map[string]string{"tone": "loud"}, Data: []byte("{\"a\": 1}\n"),
	}
	got, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"time":"2026-01-02T03:04:05.000Z"`, `"tone":"loud"`, `"data_base64":"eyJhIjogMX0K"`} {
		if !strings.Contains(string(got), want) {
			t.Errorf("%s has no %s", got, want)
		}
	}
}

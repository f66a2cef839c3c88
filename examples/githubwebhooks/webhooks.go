// Package githubwebhooks holds 329 real GitHub webhook deliveries of 58 kinds and
// the JSON Schema (draft-07, 344 definitions) that GitHub's SDK publishes for
// them. It is data for examples, tests and benchmarks of schema validation: some
// deliveries are older than the schema and break it, which is real drift.
//
// The data is embedded compressed and unpacked on first use. All functions are
// safe for concurrent use; what they return is shared and must not be modified.
//
// The data is not ours: see README.md for its source and licence.
package githubwebhooks

import (
	"bufio"
	"bytes"
	"compress/gzip"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"sync"
)

//go:embed events.ndjson.gz
var eventsGzip []byte

//go:embed schema.json.gz
var schemaGzip []byte

// Delivery is one webhook call as GitHub made it.
type Delivery struct {
	Event   string          `json:"event"`   // as in the X-GitHub-Event header
	Action  string          `json:"action"`  // empty for events that have none
	Payload json.RawMessage `json:"payload"` // 1 to 28 KB
}

var load = sync.OnceValues(func() ([]Delivery, error) {
	r, err := gzip.NewReader(bytes.NewReader(eventsGzip))
	if err != nil {
		return nil, fmt.Errorf("githubwebhooks: %w", err)
	}
	var out []Delivery
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var d Delivery
		if err := json.Unmarshal(lines.Bytes(), &d); err != nil {
			return nil, fmt.Errorf("githubwebhooks: line %d: %w", len(out)+1, err)
		}
		out = append(out, d)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("githubwebhooks: %w", err)
	}
	return out, nil
})

var loadSchema = sync.OnceValues(func() ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(schemaGzip))
	if err != nil {
		return nil, fmt.Errorf("githubwebhooks: %w", err)
	}
	return io.ReadAll(r)
})

// Deliveries yields the deliveries in file order. It panics if the embedded file
// is damaged, which is a fault of the build.
func Deliveries() iter.Seq[Delivery] {
	all, err := load()
	if err != nil {
		panic(err)
	}
	return func(yield func(Delivery) bool) {
		for _, d := range all {
			if !yield(d) {
				return
			}
		}
	}
}

// Schema returns the text of the schema document. It panics if the embedded file
// is damaged, which is a fault of the build.
func Schema() []byte {
	b, err := loadSchema()
	if err != nil {
		panic(err)
	}
	return b
}

var definitions = sync.OnceValue(func() map[string]json.RawMessage {
	var doc struct {
		Definitions map[string]json.RawMessage `json:"definitions"`
	}
	if err := json.Unmarshal(Schema(), &doc); err != nil {
		panic(fmt.Errorf("githubwebhooks: %w", err))
	}
	return doc.Definitions
})

// Definition returns the fragment of the definition for an event, such as
// "#/definitions/issues_event", and "" for an event that the schema does not know.
func Definition(event string) string {
	for _, name := range []string{event + "_event", event + "$event"} {
		if _, ok := definitions()[name]; ok {
			return "#/definitions/" + name
		}
	}
	return ""
}

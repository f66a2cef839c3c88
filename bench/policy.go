package bench

import (
	"bytes"
	"fmt"
	"strings"
)

// Policy is the policy of the measurements: every check of the hot path is on, and
// none of them bites. READ is filled once and then
// read; LOGGED has a log, which costs nothing before something is published there.
const Policy = `tenant: bench
streams:
  - {name: PLAIN, subjects: [plain.>], maxBytes: 4GiB}
  - {name: CHECKED, subjects: [checked.>], maxBytes: 4GiB}
  - {name: READ, subjects: [read.>], maxBytes: 512MiB}
  - {name: LOGGED, subjects: [logged.>], maxBytes: 1GiB, log: true}
schemas:
  - name: order
    version: 1
    text: |
      {"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object",
       "required": ["id", "customer", "currency", "total", "items"], "additionalProperties": false,
       "properties": {
         "id": {"type": "integer", "minimum": 1},
         "customer": {"type": "string", "minLength": 1, "maxLength": 64},
         "currency": {"enum": ["EUR", "USD", "JPY"]},
         "total": {"type": "number", "minimum": 0},
         "note": {"type": "string"},
         "items": {"type": "array", "minItems": 1, "items": {
           "type": "object", "required": ["sku", "count", "price"],
           "properties": {"sku": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{6}$"},
             "count": {"type": "integer", "minimum": 1}, "price": {"type": "number", "minimum": 0}}}}}}
subjects:
  - {match: checked.>, schema: order}
limits:
  high: {messages: 10000000/s, bytes: 16GiB/s, burst: 10s, exceed: reject}
principals:
  - name: bench
    identities: [{nkey: {{nkey "bench"}}}]
    publish: [plain.>, checked.>, read.>, logged.>]
    subscribe: [plain.>, checked.>, read.>]
    admin: [log]
    limit: high
`

// Streams and subjects of Policy.
const (
	streamPlain, subjectPlain     = "PLAIN", "plain.orders.created"
	streamChecked, subjectChecked = "CHECKED", "checked.orders.created"
	streamRead, subjectRead       = "READ", "read.orders.created"
	streamLogged, subjectLogged   = "LOGGED", "logged.orders.created"
	filterRead                    = "read.>"
)

// order makes a JSON order of exactly size bytes that the schema of Policy accepts.
func order(size int) []byte {
	var b bytes.Buffer
	b.WriteString(`{"id":4711,"customer":"c-10041","currency":"EUR","total":1284.5,"items":[`)
	const item = `{"sku":"AB-%06d","count":%d,"price":19.25}`
	const tail = `],"note":"`
	const end = `"}`
	for i := 0; i == 0 || b.Len()+len(tail)+len(end)+60 < size; i++ {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, item, i+1, i%9+1)
	}
	b.WriteString(tail)
	for b.Len()+len(end) < size {
		b.WriteByte("lorem ipsum dolor sit amet "[b.Len()%27])
	}
	b.WriteString(end)
	return b.Bytes()
}

// pairPolicy is Policy with the flooder of the workloads on fairness.
var pairPolicy = strings.NewReplacer(
	"subjects:\n  - {match", "subjects:\n  - {match: plain.small, maxPayload: 1KiB}\n  - {match",
	"limits:\n", "limits:\n  flooded: {match: plain.limited, messages: 1000/s, burst: 1s}\n",
	"principals:\n", `principals:
  - name: flooder
    identities: [{nkey: {{nkey "flooder"}}}]
    publish: [plain.>, checked.>]
    limit: [high, flooded]
`).Replace(Policy)

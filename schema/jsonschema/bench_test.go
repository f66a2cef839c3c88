package jsonschema

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	gh "github.com/signetbus/signet/examples/githubwebhooks"
	"github.com/signetbus/signet/schema"
)

// orderSchema is the closed order event of the measurements in this package.
const orderSchema = `{
 "$schema": "https://json-schema.org/draft/2020-12/schema",
 "type": "object", "additionalProperties": false,
 "required": ["id", "created", "customer", "currency", "total", "items"],
 "properties": {
  "id": {"type": "string", "format": "uuid"},
  "created": {"type": "string", "format": "date-time"},
  "customer": {"type": "object", "additionalProperties": false, "required": ["email", "country"], "properties": {
    "email": {"type": "string", "format": "email"},
    "country": {"type": "string", "pattern": "^[A-Z]{2}$"}}},
  "currency": {"enum": ["EUR", "USD", "GBP"]},
  "total": {"$ref": "#/$defs/amount"},
  "note": {"type": "string", "maxLength": 200},
  "items": {"type": "array", "minItems": 1, "maxItems": 100, "items": {"$ref": "#/$defs/item"}}},
 "$defs": {
  "amount": {"type": "number", "minimum": 0, "maximum": 1000000},
  "item": {"type": "object", "additionalProperties": false, "required": ["sku", "qty", "price"], "properties": {
    "sku": {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{5}$"},
    "qty": {"type": "integer", "minimum": 1, "maximum": 999},
    "price": {"$ref": "#/$defs/amount"},
    "tags": {"type": "array", "maxItems": 10, "items": {"type": "string", "pattern": "^[a-z0-9-]{1,20}$"}}}}}}`

// order returns a valid order of exactly size bytes.
func order(items, size int) []byte {
	var b strings.Builder
	b.WriteString(`{"id":"0190b6c2-7a0e-7c3e-9a58-1f0d2c3b4a59","created":"2026-11-22T13:45:00.123Z",` +
		`"customer":{"email":"ada@example.com","country":"NL"},"currency":"EUR","total":129.95,"items":[`)
	for i := range items {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"sku":"ABC-%05d","qty":%d,"price":%d.50`, i, i+1, i+3)
		if items > 1 {
			b.WriteString(`,"tags":["new","sale-2026"]`)
		}
		b.WriteByte('}')
	}
	b.WriteString(`]`)
	if pad := size - b.Len() - len(`,"note":""}`); pad >= 0 {
		b.WriteString(`,"note":"` + strings.Repeat("n", pad) + `"`)
	}
	b.WriteByte('}')
	return []byte(b.String())
}

func mustCompile(t testing.TB, text, ref string) schema.Validator {
	t.Helper()
	v, err := New(schema.Limits{}).Compile(context.Background(), schema.Document{
		Name: "test", Version: 1, Format: schema.FormatJSONSchema, Text: []byte(text), Ref: ref,
	})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

var sizes = []struct {
	name        string
	items, size int
}{{"256B", 1, 256}, {"2KiB", 24, 2048}}

func TestOrder(t *testing.T) {
	v := mustCompile(t, orderSchema, "")
	for _, s := range sizes {
		data := order(s.items, s.size)
		if len(data) != s.size {
			t.Errorf("%s: %d bytes", s.name, len(data))
		}
		if got := v.Validate([]byte("application/json"), data); !got.OK {
			t.Errorf("%s: %+v", s.name, got)
		}
	}
}

func BenchmarkValidate(b *testing.B) {
	v := mustCompile(b, orderSchema, "")
	for _, s := range sizes {
		data := order(s.items, s.size)
		b.Run(s.name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if !v.Validate(nil, data).OK {
					b.Fatal("refused")
				}
			}
		})
		b.Run(s.name+"/scan", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if Scan(data, schema.Limits{}) != nil {
					b.Fatal("refused")
				}
			}
		})
		b.Run(s.name+"/json.Valid", func(b *testing.B) {
			for b.Loop() {
				json.Valid(data)
			}
		})
		bad := append([]byte(nil), data...)
		bad[8] = 'z' // breaks the uuid
		b.Run(s.name+"/refuse", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if v.Validate(nil, bad).OK {
					b.Fatal("accepted")
				}
			}
		})
	}
}

func BenchmarkGitHub(b *testing.B) {
	e := New(schema.Limits{})
	validators := map[string]schema.Validator{}
	var all []gh.Delivery
	size := 0
	for d := range gh.Deliveries() {
		all = append(all, d)
		size += len(d.Payload)
		if validators[d.Event] == nil {
			v, err := e.Compile(context.Background(), webhookDocument(d.Event))
			if err != nil {
				b.Fatal(err)
			}
			validators[d.Event] = v
		}
	}
	b.SetBytes(int64(size / len(all)))
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		d := &all[i%len(all)]
		validators[d.Event].Validate(nil, d.Payload)
		i++
	}
}

func webhookDocument(event string) schema.Document {
	return schema.Document{
		Name: event, Version: 1, Format: schema.FormatJSONSchema, Text: gh.Schema(), Ref: gh.Definition(event),
	}
}

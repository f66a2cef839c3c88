package jsonschema_test

import (
	"context"
	"fmt"

	"github.com/signetbus/signet/schema"
	"github.com/signetbus/signet/schema/jsonschema"
)

func Example() {
	engine := jsonschema.New(schema.Limits{})
	order, err := engine.Compile(context.Background(), schema.Document{
		Name: "order", Version: 1, Format: schema.FormatJSONSchema,
		Text: []byte(`{"required":["id"],"properties":{"id":{"format":"uuid"},"qty":{"minimum":1}},"additionalProperties":false}`),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	verdict := order.Validate([]byte("application/json"), []byte(`{"id":"0190b6c2-7a0e-7c3e-9a58-1f0d2c3b4a59","qty":0}`))
	fmt.Println(verdict.OK, verdict.Code)
	for _, v := range verdict.Violations {
		fmt.Println(v.At, v.Rule, v.Message)
	}
	// Output:
	// false 40400 SchemaViolation
	// /qty minimum must be at least 1
}

func ExampleScan() {
	fmt.Println(jsonschema.Scan([]byte(`{"type":"a","t\u0079pe":"b"}`), schema.Limits{}))
	// Output:
	// jsonschema: duplicate member name at byte 13
}

package wire_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/internal/wire/codegen"
)

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestGeneratedCodeIsFresh: codes_gen.go is what generate.go makes of errors.json.
func TestGeneratedCodeIsFresh(t *testing.T) {
	want, err := codegen.Go(readFile(t, "errors.json"))
	if err != nil {
		t.Fatal(err)
	}
	if got := readFile(t, "codes_gen.go"); !bytes.Equal(got, want) {
		t.Error("codes_gen.go is stale: go generate ./internal/wire")
	}
}

// TestErrorsDocumentIsFresh: so is the table of the specification.
func TestErrorsDocumentIsFresh(t *testing.T) {
	got := readFile(t, "../../docs/spec/errors.md")
	want, err := codegen.Document(got, readFile(t, "errors.json"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("the table of docs/spec/errors.md is stale: go generate ./internal/wire")
	}
}

func TestRegistry(t *testing.T) {
	codes, names := map[wire.Code]bool{}, map[string]bool{}
	for _, e := range wire.Registry() {
		if e.Code < 40000 || e.Code > 40999 {
			t.Errorf("%s: outside 40000-40999", e.Code)
		}
		if codes[e.Code] || names[e.Name] {
			t.Errorf("%s: code or name used twice", e.Code)
		}
		codes[e.Code], names[e.Name] = true, true
		if *e.Code.Entry() != e || e.Code.Class() != e.Class || e.Code.String() != fmt.Sprintf("%d %s", e.Code, e.Name) {
			t.Errorf("%s: Entry, Class or String do not fit the registry", e.Code)
		}
		if e.Status == 503 && e.Class != wire.ClassUnavailable {
			t.Errorf("%s: 503 outside the class unavailable", e.Code)
		}
	}
	if got := wire.Code(1).Entry().Code; got != wire.CodeInternal {
		t.Errorf("an unknown code has the row of %s, want CodeInternal", got)
	}
}

func TestRefusalIsAnError(t *testing.T) {
	r := wire.Refuse(wire.CodeRateLimited, "limit writer", "500/s")
	r.Subject, r.Principal, r.Ref, r.RetryAfter = "a\nb", "shop/checkout", "01JD", 1500*time.Microsecond
	want := `signet: 40500 RateLimited: the message rate limit is spent: 500/s (rule limit writer) subject="a\nb" principal=shop/checkout retry-after=1.5ms ref=01JD`
	if got := r.Error(); got != want {
		t.Errorf("Error() = %s\nwant %s", got, want)
	}
	if got := wire.AsRefusal(fmt.Errorf("wrapped: %w", r)); got != r {
		t.Errorf("AsRefusal of a wrapped refusal = %v", got)
	}
	hidden := wire.AsRefusal(errors.New("password is hunter2"))
	if hidden.Code != wire.CodeInternal || strings.Contains(hidden.Error(), "hunter2") {
		t.Errorf("AsRefusal of another error = %v, want an internal one that hides its text", hidden)
	}
}

func fullRefusal() *wire.Refusal {
	return &wire.Refusal{
		Code: wire.CodeSchemaViolation, Rule: "schema order/3", Subject: "orders.eu.created", Principal: "shop/checkout",
		Detail: "2 violations", Ref: "01JD", RetryAfter: 20 * time.Millisecond, Truncated: true,
		Violations: []wire.Violation{{At: "/n", Rule: "type", SchemaAt: "/properties/n", Want: "integer", Got: "string of 3 bytes", Offset: 7, Message: "m"}},
		Explain:    &wire.Explanation{File: "p.yaml", Line: 3, Nearest: "orders.*", Fix: "add"},
	}
}

func TestProblemRoundTrip(t *testing.T) {
	for _, e := range wire.Registry() {
		r := fullRefusal()
		r.Code = e.Code
		var a wire.ErrorAnswer
		if err := json.Unmarshal(r.Answer("io.nats.x", true), &a); err != nil {
			t.Fatal(err)
		}
		if got := a.Problem.Refusal(); !reflect.DeepEqual(got, r) {
			t.Errorf("round trip = %+v, want %+v", got, r)
		}
		if a.Type != "io.nats.x" || a.Error.ErrCode != e.Code || a.Error.Code != e.Status || a.Problem.Class != e.Class || a.Problem.Fix != e.Fix {
			t.Errorf("answer = %+v, problem %+v", a, a.Problem)
		}
	}
}

func TestAnswer(t *testing.T) {
	r := fullRefusal()
	want := `{"error":{"code":422,"err_code":40400,"description":"the payload does not match the schema of the subject: 2 violations (rule schema order/3) ref 01JD"},` +
		`"problem":{"type":"urn:signet:problem:SchemaViolation","title":"the payload does not match the schema of the subject","status":422,"code":40400,` +
		`"class":"schema-violation","rule":"schema order/3","subject":"orders.eu.created","principal":"shop/checkout","detail":"2 violations","ref":"01JD",` +
		`"retryAfterMs":20,"violations":[{"at":"/n","rule":"type","schemaAt":"/properties/n","want":"integer","got":"string of 3 bytes","offset":7,"message":"m"}],` +
		`"truncated":true,"fix":"see violations; signet dlq ls finds the stored payload by its ref"}}`
	if got := string(r.Answer("", false)); got != want {
		t.Errorf("Answer =\n%s\nwant\n%s", got, want)
	}
	if got := string(r.Answer("", false)); strings.Contains(got, "explain") || strings.Contains(got, "p.yaml") {
		t.Error("policy internals reach the caller")
	}
	r.RetryAfter = time.Microsecond
	if p := r.Problem(false); p.RetryAfterMs != 1 {
		t.Errorf("retryAfterMs of 1us = %d, want 1: a caller that waits so long must pass", p.RetryAfterMs)
	}
}

package schema

import (
	"context"
	"crypto/sha256"
	"errors"
	"strconv"

	"github.com/signetbus/signet/internal/wire"
)

// FormatJSONSchema is the Document.Format of schema/jsonschema.
const FormatJSONSchema = "jsonschema"

// ErrRefused is wrapped by every error of Engine.Compile that is the document's
// fault. Any other error is a fault of the caller or of the engine.
var ErrRefused = errors.New("schema: document refused")

// Document is one registered schema: an immutable text and the place in it that
// a subject is bound to.
type Document struct {
	Name    string // as in the policy
	Version int    // from 1
	Format  string // FormatJSONSchema
	Text    []byte // the document as registered; never modified, may be shared
	Ref     string // URI fragment with its #, as in "#/definitions/issues_event"; empty: the whole document
}

// ID returns "name@version", as refusals and dead letters name the schema.
func (d *Document) ID() string { return d.Name + "@" + strconv.Itoa(d.Version) }

// SHA256 returns the digest of Text. Documents that differ only in Name, Version
// or Ref share one parsed text by it.
func (d *Document) SHA256() [sha256.Size]byte { return sha256.Sum256(d.Text) }

// Engine compiles documents of one format. Implementations are safe for
// concurrent use and do no I/O: a reference that leaves the document is refused.
type Engine interface {
	// Compile returns the validator of d. An error that wraps ErrRefused names
	// every fault found in the document, joined; ctx is looked at before the
	// work starts, which itself is bounded by Limits.Registration.
	Compile(ctx context.Context, d Document) (Validator, error)
}

// Validator judges payloads against one document. It is pure and safe for
// concurrent use, never panics, and keeps no reference to its arguments.
type Validator interface {
	// Validate judges data, whose media type is contentType (empty: the media
	// type of the engine). Valid data costs no allocation in steady state.
	Validate(contentType, data []byte) Verdict
}

// Verdict is the answer of a Validator. The zero value refuses, with no code: a
// Validator always sets Code when OK is false.
type Verdict struct {
	OK   bool
	Code wire.Code // why not: SchemaViolation, JSONMalformed, PayloadTooLarge, ContentTypeMismatch, SchemaFuelSpent or Internal

	// Offset is the byte in the payload at which the first fault was seen; 0
	// when it does not apply.
	Offset int

	// Violations is set with CodeSchemaViolation: at most Limits.Violations, the
	// most telling first. They never hold a value of the payload.
	Violations []wire.Violation

	// Truncated says that more violations exist, or may exist, than are listed.
	Truncated bool

	// Detail is one line for the caller, without payload bytes.
	Detail string
}

// Refusal converts a verdict that is not OK. rule names the policy rule that
// bound the schema. It returns nil for a verdict that is OK.
func (v *Verdict) Refusal(rule string) *wire.Refusal {
	if v.OK {
		return nil
	}
	code := v.Code
	if code == 0 {
		code = wire.CodeInternal
	}
	return &wire.Refusal{Code: code, Rule: rule, Detail: v.Detail, Violations: v.Violations, Truncated: v.Truncated}
}

// Package schema is the model of payload schemas: the document that a policy
// registers, the engine that compiles it, the validator that judges a payload,
// and the limits that both must keep.
//
// The package holds types only. Engines live in sub-packages, one per format
// (schema/jsonschema), and are chosen by Document.Format. Nothing here starts a
// goroutine or does I/O; all types are plain values. Validators are immutable
// and safe for concurrent use.
//
// Format: docs/spec/schema.md.
package schema

// Package jsonschema is the JSON Schema engine: draft-07 and 2020-12, formats
// asserted, every reference inside the document.
//
// A payload goes through three stages. The strict scanner (Scan) reads the bytes
// once, under limits, and refuses whatever two parsers could read differently. The
// evaluator then walks a plan of the schema over the scanned document, with a
// budget of steps: it never panics, never recurses deeper than the payload and
// the checked schema allow, and allocates nothing for a valid payload. Only when
// it says no, a second run collects what is wrong, without echoing values: the same
// evaluation with a report for its reporter to fill. Its third part, the comparer,
// knows when two values are equal; the three share the budget.
//
// github.com/santhosh-tekuri/jsonschema/v6 is the compiler behind it: it checks a
// document against its metaschema and resolves references, once, at registration,
// behind a loader that refuses everything. It never sees a payload: unguarded it
// panics on a number of nine bytes and has no budget. In tests it is the oracle
// of the evaluator.
//
// Engines and validators are safe for concurrent use; no goroutine is started.
// Scanned documents and runs are pooled; a pool entry keeps at most some 1.5 MiB.
//
// The official test suite is run by `go test -tags suite` (see suite_test.go); it
// is not part of the repository.
//
// Format: docs/spec/schema.md.
package jsonschema

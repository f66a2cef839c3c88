// Package policy reads, checks and compiles the policy bundle: who may do what
// (principals, roles, grants), what exists (streams, buckets, schemas) and what
// must hold (subject rules, limits, dead letters).
//
// A bundle is one or many YAML documents, each for one tenant. Reading is strict:
// an unknown key, a wrong type, a repeated key, an anchor or alias, a name that
// nothing declares are faults, and every fault is reported with file, line and
// column. Nothing is granted by default.
//
// Load or Parse makes a Bundle, Compile makes a Set, as it holds at one moment: grants
// may end, and templates are filled in for each principal. A Set is immutable, but for
// the counts of its rules, and safe for concurrent use; its lookups do not allocate. Callers must not modify the
// slices that it hands out. Only Load touches the disk; the package starts no goroutine.
//
// Format: docs/spec/policy.md.
package policy

// Package acl decides: may this principal do this? Its functions are pure, safe
// for concurrent use, never retain an argument, and allocate only in Permissions
// and Explain. What no grant covers is denied.
//
// Subjects are judged as given: the caller has checked their grammar
// (wire.CheckSubject, wire.CheckFilter) before.
//
// Grants and their meaning: docs/spec/policy.md.
package acl

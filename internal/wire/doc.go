// Package wire holds what every part of Signet must agree on byte for byte: the
// names of headers and attributes, the grammar of subjects, the strict NATS
// header parser, the protocol encoders, and the registry of error codes.
//
// It imports nothing but the standard library, starts no goroutine and keeps no
// state. Functions that take []byte never retain it unless they say so.
//
// Formats: docs/spec/subjects.md, docs/spec/errors.md.
package wire

// Package guardmatrix is the matrix that the tests of the read guard walk: every control
// subject of nats-server times every role, asset and form of a request, each cell with the
// verdict that the policy's words demand (docs/spec/subjects.md section 6).
//
// The oracle (oracle.go) shares no code with broker/jsapi, broker/acl or internal/wire: it
// knows the roles from the table in roles.go, from which the policy text is written too, and
// compares subjects token by token. The control subjects and the members of request bodies
// are read from the source of the server (source.go), so a new version that brings another
// one fails a test until somebody has put it here.
//
// Only tests import it.
package guardmatrix

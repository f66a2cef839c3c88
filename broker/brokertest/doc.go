// Package brokertest starts a whole broker for a test in one call: real TLS, real
// keys, a real store in the test's temporary folder, the policy of the test. The
// broker runs in the test's process and is shut down with it.
//
// NewCluster does the same with three or five nodes. NewProcesses makes a cluster of
// real `signet serve` processes, which can be killed, paused and cut off.
//
// It is for the tests of Signet and of the services that use it.
package brokertest

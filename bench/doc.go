// Package bench is the load generator and the baselines: it runs Signet and plain
// nats-server with JetStream side by side and offers both the same load through
// the same, unmodified client library.
//
// A server is always a process of its own: Start runs this program again, which
// must begin with ServeIfAsked. The two talk in JSON lines over standard input and
// output (docs at command and answer); a server ends when its input does, so that
// none outlives its driver. The driver's functions block; a Server is used by one
// goroutine at a time.
//
// The command bench/cmd/bench measures, bench/cmd/faults kills.
package bench

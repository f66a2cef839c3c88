// Package ops serves the operations port: metrics for Prometheus and the three
// probes of Kubernetes. It knows no other part of the broker; what there is to
// measure comes in as Sources, what counts as healthy as functions.
//
// The port is separate from the client port, carries no payloads, subjects or
// principal names beyond the labels of the sources, and is bound to loopback
// unless the configuration says otherwise.
//
// Goroutines: Start starts one (the HTTP server); Shutdown ends it and waits.
package ops

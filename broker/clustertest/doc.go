// Package clustertest drives whole clusters through what operators do to them:
// nodes replaced, removed, rescued. It has tests only; they take longer than others.
package clustertest

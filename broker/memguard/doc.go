// Package memguard watches the memory of the process: it sets the soft limit of the
// Go runtime below the limit of the control group, so that the garbage collector
// works harder before the kernel kills, and says when so much memory is in use that
// no new connection should be let in.
//
// In use is what the last garbage collection found alive, and stacks: what is garbage
// already would refuse clients for nothing. Above the mark the guard collects by
// itself now and then, so that what was given back is seen soon.
//
// Goroutines: Start starts one; Shutdown ends it and waits.
package memguard

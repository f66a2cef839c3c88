//go:build race

package admission

// raceEnabled: under the race detector a sync.Pool drops what it is given now and
// then, so allocations cannot be counted.
const raceEnabled = true

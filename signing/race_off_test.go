//go:build !race

package signing

// raceEnabled: under the race detector sync.Pool drops entries at random.
const raceEnabled = false

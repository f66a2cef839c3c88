package broker

import (
	"maps"
	"slices"

	"github.com/rs/zerolog"
)

// doorLog says which limits turn connections away: over TLS most clients are closed
// without an answer, and only the operator can raise the limit. The zero value is
// ready. Not safe for concurrent use.
type doorLog struct{ before map[string]uint64 }

// report logs one line for each limit that has grown since the last call. counts are
// gate.Stats.TurnedAway.
func (d *doorLog) report(log zerolog.Logger, counts map[string]uint64) {
	for _, limit := range slices.Sorted(maps.Keys(counts)) {
		if n := counts[limit] - d.before[limit]; n > 0 {
			log.Warn().Str("limit", limit).Uint64("connections", n).Msg("connections were turned away: close some, or raise the limit")
		}
	}
	d.before = counts
}

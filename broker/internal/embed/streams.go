package embed

import (
	"fmt"

	"github.com/nats-io/nats-server/v2/server"
)

// StreamState is what this server holds of one stream, by its own account.
type StreamState struct {
	Account, Name     string
	Messages          uint64
	FirstSeq, LastSeq uint64
	Deleted           uint64 // sequences between first and last that hold no message
	// AppendOnly: nothing but age and limits takes messages out, so Deleted must be 0.
	AppendOnly bool
}

// Holes is how many messages are missing between the first and the last. A stream that
// never had a message says 0 for both, one that is empty again a first after the last.
func (s *StreamState) Holes() uint64 {
	if s.LastSeq == 0 || s.LastSeq < s.FirstSeq {
		return 0
	}
	return max(s.LastSeq-s.FirstSeq+1-min(s.Messages, s.LastSeq-s.FirstSeq+1), s.Deleted)
}

// StreamStates reads the state of all streams that this server has a replica of, its
// own replica's and not the leader's. It costs some microseconds per stream.
//
// Errors: ErrUnhealthy.
func (s *Server) StreamStates() ([]StreamState, error) {
	info, err := s.ns.Jsz(&server.JSzOptions{Accounts: true, Streams: true, Config: true, Limit: 1 << 20})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnhealthy, err)
	}
	var out []StreamState
	for _, acc := range info.AccountDetails {
		for i := range acc.Streams {
			d := &acc.Streams[i]
			out = append(out, StreamState{
				Account: acc.Name, Name: d.Name, Messages: d.State.Msgs, FirstSeq: d.State.FirstSeq, LastSeq: d.State.LastSeq,
				Deleted: uint64(max(d.State.NumDeleted, 0)), AppendOnly: appendOnly(d.Config),
			})
		}
	}
	return out, nil
}

func appendOnly(c *server.StreamConfig) bool {
	return c != nil && c.Retention == server.LimitsPolicy && c.DenyDelete && c.DenyPurge && c.MaxMsgsPer <= 0 &&
		!c.AllowRollup && !c.AllowMsgTTL && !c.AllowMsgSchedules && c.Mirror == nil
}

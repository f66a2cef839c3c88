package broker

import (
	"bytes"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/rs/zerolog"

	"github.com/signetbus/signet/broker/acl"
	"github.com/signetbus/signet/broker/audit"
	"github.com/signetbus/signet/broker/deadletter"
	"github.com/signetbus/signet/broker/gate"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/dlq"
	"github.com/signetbus/signet/internal/wire"
)

// sink is what the gate tells: it enters refusals into the audit trail, offers
// those that the rules keep as dead letters, and logs who comes and goes. It runs
// in the goroutines of the connections and never blocks.
type sink struct {
	log     zerolog.Logger
	rec     *auditing
	letters *deadletter.Writer
	policy  func() *policy.Set
}

func newSink(b *Broker, component string) *sink {
	return &sink{log: b.component(component), rec: &b.auditing, letters: b.letters, policy: b.Policy}
}

// Refused implements gate.Sink.
func (s *sink) Refused(r *wire.Refusal, rej *gate.Rejected) {
	set := s.policy()
	class := acl.ClassDenied
	if t := set.Tenant(rej.Tenant); t != nil {
		class = acl.Classify(t, string(rej.Subject))
	}
	told := *r
	if rej.Tenant == "" && r.Detail == "" && r.Explain != nil {
		told.Detail = r.Explain.Fix // of a login: nobody's signet explain shows it, so the log and the record must
	}
	told.Subject, told.Detail = visible(r.Subject), visible(told.Detail)
	s.rec.trail.Refused(&told, audit.Origin{Tenant: rej.Tenant, Class: class.String(), Verb: rej.Verb, Remote: rej.Remote})
	r.Ref = told.Ref
	if !rej.Store || rej.Tenant == "" {
		return
	}
	// The slices end with this call, and the writer keeps the record.
	rec := dlq.FromRefusal(r, time.Now(), bytes.Clone(rej.Header), bytes.Clone(rej.Payload))
	rec.Policy, rec.Schema = set.Digest(), rej.Schema
	s.letters.Offer(rej.Tenant, rec)
}

// Connected implements gate.Sink.
func (s *sink) Connected(c *gate.Connection) {
	s.rec.connected(c)
	s.log.Debug().Uint64("connection", c.ID).Str("principal", c.Tenant+"/"+c.Principal).Str("remote", c.Remote).
		Str("client", visible(c.Lang+" "+c.Version)).Msg("connected")
}

// Panicked implements gate.Sink.
func (s *sink) Panicked(c *gate.Connection, what string, stack []byte) {
	s.log.Error().Uint64("connection", c.ID).Str("principal", c.Tenant+"/"+c.Principal).Str("remote", c.Remote).
		Str("panic", visible(what)).Bytes("stack", stack).Msg("a fault of the broker ended a connection")
}

// Disconnected implements gate.Sink.
func (s *sink) Disconnected(c *gate.Connection, reason string) {
	s.log.Debug().Uint64("connection", c.ID).Str("principal", c.Tenant+"/"+c.Principal).Str("reason", visible(reason)).Msg("disconnected")
}

// visible escapes what a terminal would obey or hide. JSON escapes the ASCII controls
// only: U+009B, which begins a terminal command, and the marks that reverse text
// would pass.
func visible(s string) string {
	for _, r := range s {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			q := strconv.Quote(s)
			return q[1 : len(q)-1]
		}
	}
	return s
}

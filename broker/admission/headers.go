package admission

import (
	"bytes"
	"errors"

	"github.com/signetbus/signet/broker/acl"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

// Headers that the key-value and object store protocols of nats.go need; a write
// grant on the bucket implies them.
var bucketHeaders = map[string]bool{
	"KV-Operation":                        true,
	"Nats-Expected-Last-Subject-Sequence": true,
	"Nats-Expected-Last-Sequence":         true,
	"Nats-Expected-Stream":                true,
	"Nats-TTL":                            true,
	"Nats-Marker-Reason":                  true,
}

func headerRefusal(err error) *wire.Refusal {
	code := wire.CodeHeaderMalformed
	if errors.Is(err, wire.ErrHeaderCount) || errors.Is(err, wire.ErrHeaderSize) {
		code = wire.CodeHeadersTooLarge
	}
	return wire.Refuse(code, "headers", err.Error())
}

// takeHeaders judges the parsed headers for the class of rt and appends the lines
// that go along to the arena. CloudEvents attributes are left for the event codec.
func (s *Session) takeHeaders(rt *route) *wire.Refusal {
	event := rt.class == acl.ClassEvent || rt.class == acl.ClassEphemeral
	for _, h := range s.headers.All() {
		switch {
		case string(h.Name) == wire.HeaderAck:
			if r := takeAsk(s, h); r != nil {
				return r
			}
			continue // it is for the gate: neither stored nor sent on
		case wire.HasPrefixFold(h.Name, wire.PrefixSignet):
			return wire.Refuse(wire.CodeHeaderDenied, "headers", "the prefix Signet- is reserved: "+printable(h.Name))
		case wire.EqualFold(h.Name, "Status"), wire.EqualFold(h.Name, "Description"):
			// Client libraries read these on an empty message as a control frame of the
			// server: one stored event could stop every reader behind it.
			return wire.Refuse(wire.CodeHeaderDenied, "headers", "header "+printable(h.Name))
		case wire.HasPrefixFold(h.Name, wire.PrefixNats) || wire.EqualFold(h.Name, "KV-Operation"):
			keep, r := s.takeCapability(rt, h)
			if r != nil {
				return r
			}
			if !keep {
				continue
			}
		case event && (wire.HasPrefixFold(h.Name, wire.PrefixAttribute) || wire.EqualFold(h.Name, wire.HeaderContentType)):
			continue // the event codec reads and re-writes these
		}
		s.arena = append(s.arena, h.Name...)
		s.arena = append(s.arena, ':', ' ')
		s.arena = append(s.arena, h.Value...)
		s.arena = append(s.arena, '\r', '\n')
	}
	if rt.class == acl.ClassRPC || rt.class == acl.ClassAdmin {
		s.arena = wire.AppendHeader(s.arena, wire.HeaderPrincipal, s.authID)
	}
	return nil
}

// takeCapability judges a header that the server acts on. keep says whether the
// line goes along as it is.
func (s *Session) takeCapability(rt *route, h wire.Header) (keep bool, _ *wire.Refusal) {
	name := string(h.Name)
	switch rt.class {
	case acl.ClassEvent:
		if name == wire.HeaderMsgID {
			return false, nil // becomes the id of the event; the stored one is derived
		}
		if name == policy.FastBatch || name == policy.Cron {
			break // rights, and no headers
		}
		if acl.Header(s.p, name).Use().Allowed {
			if r := reaches(s, rt.subject, name, h.Value); r != nil {
				return false, r
			}
			return true, s.plans.take(name, h.Value)
		}
	case acl.ClassEphemeral:
		if name == wire.HeaderMsgID {
			return false, nil
		}
	case acl.ClassKV, acl.ClassObject:
		if bucketHeaders[name] {
			return true, nil
		}
		// Rollup of one subject is how both stores replace a value; "all" would
		// wipe the bucket and is a right of its own that nobody has.
		if name == "Nats-Rollup" && bytes.Equal(h.Value, []byte("sub")) {
			return true, nil
		}
	}
	return false, wire.Refuse(wire.CodeHeaderDenied, "headers", "header "+printable(h.Name))
}

// printable cuts and escapes a client's text for a one-line detail.
func printable(b []byte) string {
	const most = 64
	out := make([]byte, 0, most)
	for _, c := range b {
		if len(out) == most {
			break
		}
		if c <= ' ' || c >= 0x7f || c == '"' || c == '\\' {
			c = '?'
		}
		out = append(out, c)
	}
	return string(out)
}

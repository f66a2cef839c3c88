package jsapi

import (
	"slices"
	"strings"

	"github.com/signetbus/signet/broker/acl"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

// Names of the streams behind buckets, as every client library builds them.
const (
	prefixKVStream     = "KV_"
	prefixObjectStream = "OBJ_"
)

type streamKind uint8

const (
	streamUnknown streamKind = iota // not declared in the policy: nothing on it is allowed
	streamEvents
	streamKV
	streamObjects
	streamDeadLetters
	streamRetry     // the retry queues
	streamSchedules // schedules and their firings
)

// stream is a stream of the tenant as the policy declares it.
type stream struct {
	name     string
	kind     streamKind
	bucket   string // of streamKV and streamObjects
	subjects []string
}

func lookupStream(t *policy.Tenant, name string) stream {
	s := stream{name: name}
	if bucket, ok := strings.CutPrefix(name, prefixKVStream); ok && t.KVBucket(bucket) != nil {
		s.kind, s.bucket, s.subjects = streamKV, bucket, []string{wire.PrefixKV + bucket + ".>"}
		return s
	}
	if bucket, ok := strings.CutPrefix(name, prefixObjectStream); ok && t.ObjectBucket(bucket) != nil {
		s.kind, s.bucket = streamObjects, bucket
		s.subjects = []string{wire.PrefixObject + bucket + ".C.>", wire.PrefixObject + bucket + ".M.>"}
		return s
	}
	switch name {
	case wire.StreamDLQ:
		s.kind = streamDeadLetters
		return s
	case wire.StreamRetry:
		s.kind = streamRetry
		return s
	case wire.StreamSchedules:
		s.kind = streamSchedules
		return s
	}
	if declared := t.Stream(name); declared != nil {
		s.kind, s.subjects = streamEvents, declared.Subjects
	}
	return s
}

// canReadFilter reports whether every subject of s that matches filter is
// granted. ">" means the whole stream.
func canReadFilter(p *policy.Principal, s *stream, filter string) bool {
	if filter == ">" {
		return canReadAll(p, s)
	}
	return mayRead(p, s, filter).Allowed
}

// mayRead decides about one filter that is not the whole stream.
func mayRead(p *policy.Principal, s *stream, filter string) acl.Decision {
	switch {
	case s.kind == streamEvents && wire.CheckFilter(filter) == nil:
		return acl.Subscribe(p, filter)
	case s.kind == streamKV && inBucket(filter, wire.PrefixKV+s.bucket+".>"):
		return acl.KVRead(p, s.bucket)
	case s.kind == streamObjects && inBucket(filter, wire.PrefixObject+s.bucket+".>"):
		return acl.ObjectRead(p, s.bucket)
	}
	return acl.Decision{}
}

// using counts that p was let in to read the filters of s, none for the whole stream.
func using(p *policy.Principal, s *stream, filters ...string) {
	if len(filters) == 0 || slices.Contains(filters, ">") {
		filters = s.subjects
	}
	for _, f := range filters {
		d := mayRead(p, s, f).Use()
		d.Spared.Add()
	}
}

// canReadAll reports whether every subject of s is granted.
func canReadAll(p *policy.Principal, s *stream) bool {
	if len(s.subjects) == 0 {
		return false
	}
	for _, subject := range s.subjects {
		if !canReadFilter(p, s, subject) {
			return false
		}
	}
	return true
}

// canPurge reports whether filter stays inside a bucket that p may write.
func canPurge(p *policy.Principal, s *stream, filter string) bool {
	switch s.kind {
	case streamKV:
		return acl.KVWrite(p, s.bucket).Allowed && inBucket(filter, wire.PrefixKV+s.bucket+".>")
	case streamObjects:
		return acl.ObjectWrite(p, s.bucket).Allowed && inBucket(filter, wire.PrefixObject+s.bucket+".>")
	default:
		return false
	}
}

// canReadSome reports whether p may read something of s.
func canReadSome(p *policy.Principal, s *stream) bool {
	switch s.kind {
	case streamKV:
		return acl.KVRead(p, s.bucket).Allowed
	case streamObjects:
		return acl.ObjectRead(p, s.bucket).Allowed
	case streamEvents:
		return p.Mode != policy.ModeEnforce || overlaps(&p.Grants.Subscribe, s.subjects)
	default:
		return false
	}
}

// canSee reports whether p may read or publish something of s, which is what it
// takes to learn the stream's configuration and counters.
func canSee(p *policy.Principal, s *stream) bool {
	switch s.kind {
	case streamKV:
		return canReadSome(p, s) || acl.KVWrite(p, s.bucket).Allowed
	case streamObjects:
		return canReadSome(p, s) || acl.ObjectWrite(p, s.bucket).Allowed
	default:
		return canReadSome(p, s) || overlaps(&p.Grants.Publish, s.subjects) // what a mode spares, canReadSome has
	}
}

// canName reports whether p may ask which streams hold filter.
func canName(p *policy.Principal, filter string) bool {
	for _, b := range []struct {
		prefix      string
		read, write func(*policy.Principal, string) acl.Decision
	}{
		{wire.PrefixKV, acl.KVRead, acl.KVWrite},
		{wire.PrefixObject, acl.ObjectRead, acl.ObjectWrite},
	} {
		if rest, ok := strings.CutPrefix(filter, b.prefix); ok {
			bucket, _, more := strings.Cut(rest, ".")
			return more && validToken(bucket) && wire.CheckRawSubject(filter, true) == nil &&
				(b.read(p, bucket).Allowed || b.write(p, bucket).Allowed)
		}
	}
	return wire.CheckFilter(filter) == nil && (acl.Subscribe(p, filter).Allowed || acl.Publish(p, filter).Allowed)
}

func overlaps(g *policy.SubjectGrants, subjects []string) bool {
	return slices.ContainsFunc(g.All(), func(grant policy.Grant) bool {
		return slices.ContainsFunc(subjects, func(s string) bool { return wire.Overlap(grant.Pattern, s) })
	})
}

func inBucket(filter, bucket string) bool {
	return wire.CheckRawSubject(filter, true) == nil && wire.Subset(filter, bucket)
}

func shared(p *policy.Principal, stream, consumer string) bool {
	return p.Grants.Consumers.Covers(stream+"."+consumer) != nil
}

// sharable reports whether a consumers grant may reach a consumer of owner.
func sharable(owner string) bool { return owner != "" && owner != wire.BrokerAccount }

// ReadsWithin reports whether a consumer of the stream with these filters (none:
// the whole stream) reads only what p may read now. A consumer outlives the
// policy under which it was made, so whoever applies a policy asks this for each
// existing consumer of p and deletes those that answer false.
func ReadsWithin(p *policy.Principal, streamName string, filters []string) bool {
	s := lookupStream(p.Tenant, streamName)
	if len(filters) == 0 {
		return canReadAll(p, &s)
	}
	for _, f := range filters {
		if !canReadFilter(p, &s, f) {
			return false
		}
	}
	return true
}

// validToken is the rule for stream, consumer and queue names: one subject token
// that is also safe as a directory name, which the server makes of it.
func validToken(name string) bool {
	if name == "" || len(name) > 255 {
		return false
	}
	for i := range len(name) {
		switch c := name[i]; {
		case c <= ' ' || c >= 0x7f:
			return false
		case c == '.' || c == '*' || c == '>' || c == '/' || c == '\\':
			return false
		}
	}
	return true
}

// printable reports whether s is ASCII without control characters.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}

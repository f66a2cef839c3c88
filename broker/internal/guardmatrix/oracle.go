package guardmatrix

import (
	"slices"
	"strings"
)

// Rule is what the policy's words say about a control subject.
type Rule int

// The rules, as docs/spec/subjects.md section 6 has them.
const (
	Nobody         Rule = iota
	Everybody           // account and user information
	NameStreams         // which stream holds a subject
	SeeStream           // some grant reaches a subject of the stream
	Purge               // inside a bucket that one may write; anything for administrators
	Read                // all that is asked for is readable
	CreateConsumer      // as Read, and the name is free or one's own
	UseConsumer         // owner or shared
	SeeConsumer         // owner, shared or administrator
	ChangeConsumer      // owner or administrator
	AdminStreams        // administrators of streams
	AdminConsumers      // administrators of consumers
)

// Consumer is whose the consumer of a cell is.
type Consumer string

// The consumers. Those of the holder are shared with the roles that say so.
const (
	NoConsumer Consumer = ""
	Mine       Consumer = "mine"
	Theirs     Consumer = "theirs"
	Ownerless  Consumer = "bare"
	Brokers    Consumer = "broker" // the broker's own
	Gone       Consumer = "gone"   // does not exist
)

// verdict is the oracle. policy says that the words allow it, whatever the form.
func (c *Cell) verdict() (policy bool) {
	r, s := c.Role, c.Stream.in(c.Role.Tenant)
	switch {
	case c.Reply == ReplyElsewhere || c.Body.Deliver == ReplyElsewhere:
		return false
	case c.Reply == ReplyNone && c.Control.NeedsReply:
		return false
	case c.Header == HeaderLever:
		return false
	}
	switch c.Control.Rule {
	case Everybody:
		return true
	case NameStreams:
		return r.AdminStreams || len(c.Body.Filters) == 1 && r.names(c.Body.Filters[0])
	case SeeStream:
		return r.AdminStreams || r.sees(&s)
	case Purge:
		return r.AdminStreams && s.Kind != Undeclared && s.Kind != DeadLetters || len(c.Body.Filters) == 1 && r.purges(&s, c.Body.Filters[0])
	case Read:
		return r.reads(&s, c.Body.Filters)
	case CreateConsumer:
		return r.reads(&s, c.Body.Filters) && r.mayMake(&s, c.Consumer, c.Body)
	case UseConsumer:
		if c.Control.Reads && !r.readsSome(&s) && !r.sharesWith(&s, c.Consumer) {
			return false // whoever has lost every grant reads nothing more, its own consumer neither
		}
		return r.uses(&s, c.Consumer)
	case SeeConsumer:
		return r.AdminConsumer || r.uses(&s, c.Consumer) || c.Consumer == Gone && r.sees(&s)
	case ChangeConsumer:
		return r.AdminConsumer || c.Consumer == Mine && usable(&s)
	case AdminStreams:
		return r.AdminStreams && s.Kind != DeadLetters // those go by signet dlq, on record
	case AdminConsumers:
		return r.AdminConsumer
	}
	return false
}

// within reports whether every subject that filter matches is matched by pattern.
func within(filter, pattern string) bool {
	f, p := strings.Split(filter, "."), strings.Split(pattern, ".")
	for i, token := range p {
		switch {
		case i >= len(f):
			return false
		case token == ">":
			return true
		case f[i] == ">":
			return false
		case token != "*" && token != f[i]:
			return false
		}
	}
	return len(f) == len(p)
}

// meets reports whether some subject is matched by both.
func meets(a, b string) bool {
	x, y := strings.Split(a, "."), strings.Split(b, ".")
	for i := 0; i < len(x) && i < len(y); i++ {
		switch {
		case x[i] == ">" || y[i] == ">":
			return true
		case x[i] != y[i] && x[i] != "*" && y[i] != "*":
			return false
		}
	}
	return len(x) == len(y)
}

func inOne(filter string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return within(filter, p) })
}

// eventFilter: events begin with a literal token, and are no system, inbox or rpc subjects.
func eventFilter(filter string) bool {
	first, _, _ := strings.Cut(filter, ".")
	return first != "*" && first != ">" && first != "rpc" && !strings.HasPrefix(first, "$") && !strings.HasPrefix(first, "_")
}

func (r *Role) subscribes(filter string) bool {
	return eventFilter(filter) && (inOne(filter, r.Subscribe) || r.Lenient && inOne(filter, declared(r.Tenant)))
}

func (r *Role) publishes(filter string) bool {
	return eventFilter(filter) && (inOne(filter, r.Publish) || r.Lenient && inOne(filter, declared(r.Tenant)))
}

// readsOne: one filter of the stream is readable.
func (r *Role) readsOne(s *Stream, filter string) bool {
	if filter == ">" {
		return r.reads(s, nil)
	}
	switch s.Kind {
	case Events:
		return r.subscribes(filter)
	case KV:
		return slices.Contains(r.KVRead, s.Bucket) && within(filter, "$KV."+s.Bucket+".>")
	case Objects:
		return slices.Contains(r.ObjectRead, s.Bucket) && within(filter, "$O."+s.Bucket+".>")
	}
	return false
}

// reads: all filters are readable; without one, everything that the stream holds.
func (r *Role) reads(s *Stream, filters []string) bool {
	if len(filters) == 0 {
		filters = s.Subjects
	}
	for _, f := range filters {
		if !r.readsOne(s, f) {
			return false
		}
	}
	return len(filters) > 0
}

func (r *Role) readsSome(s *Stream) bool {
	switch s.Kind {
	case Events:
		return r.Lenient || slices.ContainsFunc(r.Subscribe, func(g string) bool {
			return slices.ContainsFunc(s.Subjects, func(p string) bool { return meets(g, p) })
		})
	case KV:
		return slices.Contains(r.KVRead, s.Bucket)
	case Objects:
		return slices.Contains(r.ObjectRead, s.Bucket)
	}
	return false
}

// sees: some grant, to read or to write, reaches the stream.
func (r *Role) sees(s *Stream) bool {
	switch s.Kind {
	case Events:
		return r.readsSome(s) || slices.ContainsFunc(r.Publish, func(g string) bool {
			return slices.ContainsFunc(s.Subjects, func(p string) bool { return meets(g, p) })
		})
	case KV:
		return r.readsSome(s) || slices.Contains(r.KVWrite, s.Bucket)
	case Objects:
		return r.readsSome(s) || slices.Contains(r.ObjectWrite, s.Bucket)
	}
	return false
}

// names: a subject that one may read or publish; that of a bucket, with a grant for it.
func (r *Role) names(subject string) bool {
	for prefix, lists := range map[string][2][]string{"$KV.": {r.KVRead, r.KVWrite}, "$O.": {r.ObjectRead, r.ObjectWrite}} {
		for _, bucket := range slices.Concat(lists[0], lists[1]) {
			if within(subject, prefix+bucket+".>") {
				return true
			}
		}
	}
	return r.subscribes(subject) || r.publishes(subject)
}

func (r *Role) purges(s *Stream, filter string) bool {
	switch s.Kind {
	case KV:
		return slices.Contains(r.KVWrite, s.Bucket) && within(filter, "$KV."+s.Bucket+".>")
	case Objects:
		return slices.Contains(r.ObjectWrite, s.Bucket) && within(filter, "$O."+s.Bucket+".>")
	}
	return false
}

// usable: consumers of dead letters and of what is not declared are nobody's.
func usable(s *Stream) bool { return s.Kind != DeadLetters && s.Kind != Undeclared }

// sharesWith: the grant, whoever's the consumer is.
func (r *Role) sharesWith(s *Stream, c Consumer) bool {
	return slices.ContainsFunc(r.Shares, func(g string) bool {
		stream, name, _ := strings.Cut(g, ".")
		return stream == s.Name && (name == "*" || name == c.name(r))
	})
}

// uses: owner, or shared by one who owns it. What belongs to nobody, or to the broker, no
// grant shares; one that is not there may be asked for.
func (r *Role) uses(s *Stream, c Consumer) bool {
	shared := r.sharesWith(s, c)
	return usable(s) && (c == Mine || shared && (c == Theirs || c == Gone))
}

// mayMake: a free name, one's own, or one that is shared and stays as it is, which none does
// that is to be sent to an inbox of the sharer's.
func (r *Role) mayMake(s *Stream, c Consumer, b *Body) bool {
	switch c {
	case NoConsumer, Mine:
		return true
	case Theirs:
		return !b.Update && b.Deliver != DeliverInbox && r.sharesWith(s, c)
	case Gone:
		return !b.Update
	}
	return false
}

// name is the consumer's. Everybody has a consumer of one's own name.
func (c Consumer) name(r *Role) string {
	if c == Mine {
		return "mine-" + r.Name
	}
	return string(c)
}

// MayGet reports whether the stored bytes of a literal subject may reach the role, by
// whatever route: by its own grants, or through another's consumer that it shares, which
// reads SharedFilter of ORDERS and all of others.
func (r *Role) MayGet(subject string) bool {
	for i := range Streams {
		s := Streams[i].in(r.Tenant)
		if !inOne(subject, s.Subjects) {
			continue
		}
		through := s.Name != "ORDERS" || within(subject, SharedFilter)
		if r.readsOne(&s, subject) || through && r.sharesWith(&s, Theirs) {
			return true
		}
	}
	return false
}

// SharedFilter is what the consumers of the holder on ORDERS read.
const SharedFilter = "orders.*.paid"

package guardmatrix

import (
	"fmt"
	"slices"
	"strings"
)

// Header is the header block of a request.
type Header int

// The headers: none, the one that clients of the API need, and one that is a lever.
const (
	HeaderNone Header = iota
	HeaderLevel
	HeaderLever
)

// Cell is one request of one role.
type Cell struct {
	Control  *Control
	Role     *Role
	Stream   *Stream
	Consumer Consumer
	Body     *Body
	Reply    Reply
	ReplyTo  string // the reply subject, as the client writes it
	Header   Header

	Subject string
	Name    string // of the consumer
	// Allowed is the verdict: the words allow it and the form is sound. Policy is the
	// first half alone.
	Allowed, Policy bool
}

// String names the cell in a failure.
func (c *Cell) String() string {
	return fmt.Sprintf("%s asks %s (consumer %q, reply %q, header %d) with %s: %.300q", c.Role.FullName(), c.Subject, c.Consumer, c.ReplyTo, c.Header, c.Body.Name, c.Body.Text)
}

const inbox = "_INBOX.a.b"

// Walk calls visit with every cell. account gives the hash of a tenant's account.
func (s *Source) Walk(account func(tenant string) string, visit func(*Cell)) {
	for _, list := range [][]Control{Controls, nobodys()} {
		for i := range list {
			s.walkControl(&list[i], account, visit)
		}
	}
}

func (s *Source) walkControl(ctl *Control, account func(string) string, visit func(*Cell)) {
	t := target{}
	for _, name := range ctl.Schema {
		t.members = append(t.members, s.Members[name]...)
	}
	streams, consumers := Streams[:1], []Consumer{NoConsumer}
	if strings.Contains(ctl.Subject, "{stream}") {
		streams = Streams
	}
	if strings.Contains(ctl.Subject, "{consumer}") {
		consumers = []Consumer{Mine, Theirs, Ownerless, Brokers, Gone}
	}
	for i := range streams {
		t.stream = &streams[i]
		slots := []string{""}
		if strings.Contains(ctl.Subject, "{filter}") {
			slots = filters(t.stream)
		}
		if ctl.Rule == CreateConsumer && len(slots) > 1 { // the payload has them all, each time
			slots = []string{slots[0], slots[2], ">", t.base()}
		}
		for n, filter := range slots {
			for _, t.consumer = range consumers {
				t.filter = filter
				t.twist = n == 0 && slices.Contains([]string{"ORDERS", "KV_cfg", "OBJ_files"}, t.stream.Name) && (t.consumer == Mine || t.consumer == NoConsumer)
				s.walkTarget(ctl, t, account, visit)
			}
		}
	}
}

// walkTarget writes the bodies once for all roles that name the consumer alike.
func (s *Source) walkTarget(ctl *Control, t target, account func(string) string, visit func(*Cell)) {
	var bodies []Body
	for i := range Roles {
		c := Cell{Control: ctl, Role: &Roles[i], Stream: t.stream, Consumer: t.consumer}
		if c.Name = t.consumer.name(c.Role); bodies == nil || c.Name != t.name {
			t.name = c.Name
			bodies = ctl.Bodies(&t)
		}
		c.Subject = strings.NewReplacer("{stream}", t.stream.Name, "{consumer}", c.Name, "{filter}", t.filter, "{account}", account(c.Role.Tenant), "{x}", "x").Replace(ctl.Subject)
		first := true
		for j := range bodies {
			c.Body = &bodies[j]
			if c.Body.Bad && t.stream != &Streams[0] && c.Role.Name != "owner" && c.Role.Name != "admin" {
				continue // with every role on one stream, and with these on each
			}
			c.cell(ReplyInbox, inbox, HeaderNone, visit)
			if !c.Body.Sample || !first {
				continue
			}
			first = false
			c.cell(ReplyNone, "", HeaderNone, visit)
			c.cell(ReplyInbox, inbox, HeaderLevel, visit)
			c.cell(ReplyInbox, inbox, HeaderLever, visit)
			for _, to := range Elsewhere {
				c.cell(ReplyElsewhere, to, HeaderNone, visit)
			}
		}
	}
}

func (c Cell) cell(reply Reply, to string, header Header, visit func(*Cell)) {
	c.Reply, c.ReplyTo, c.Header = reply, to, header
	c.Policy = c.verdict()
	c.Allowed = c.Policy && !c.Body.Bad
	visit(&c)
}

package jsapi

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/signetbus/signet/broker/acl"
	"github.com/signetbus/signet/broker/internal/guardmatrix"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

// TestMatrix judges every cell of the matrix of control subject, role, asset and form, and
// compares with what the policy's words say (guardmatrix, which shares no code with the
// guard). What is forwarded may ask for no more than the cell says.
func TestMatrix(t *testing.T) {
	src, err := guardmatrix.ReadSource()
	if err != nil {
		t.Fatal(err)
	}
	m := newMatrix(t)
	src.Walk(accountHash, func(c *guardmatrix.Cell) {
		if m.wrong < 20 {
			m.cell(t, c)
		}
	})
	m.whole(t)
	for _, v := range slices.Sorted(maps.Keys(m.counts)) {
		t.Logf("%8d cells: %s", m.counts[v], v)
	}
	t.Logf("%8d cells, %d of them with a look-up of the owner first, over %d control subjects and %d roles", m.cells, m.asked, len(m.verdicts), len(guardmatrix.Roles))
}

type matrix struct {
	set      *policy.Set
	guard    *Guard
	counts   map[string]int
	verdicts map[string]map[string]int // by control subject
	cells    int
	asked    int
	wrong    int
}

// leastCells is some less than the matrix has: one that has lost roles, assets or forms has
// fewer.
const leastCells = 500_000

// whole: a matrix of which a part has gone would pass, too. Each control that some role may
// use is allowed to one and refused to another, and the forms that break its payload are there.
func (m *matrix) whole(t *testing.T) {
	t.Helper()
	if m.cells < leastCells && m.wrong == 0 {
		t.Errorf("%d cells, want at least %d", m.cells, leastCells)
	}
	for i := range guardmatrix.Controls {
		c := &guardmatrix.Controls[i]
		v := m.verdicts[c.Subject]
		denied, all := v["denied"] > 0 || c.Rule == guardmatrix.Everybody, v["denied"]+v["allowed"]+v["malformed"]
		if c.Rule != guardmatrix.Nobody && (v["allowed"] == 0 || !denied) || c.Rule == guardmatrix.Nobody && v["denied"] < len(guardmatrix.Roles) || len(c.Schema) > 0 && v["malformed"] == 0 {
			t.Errorf("%s has %d cells, of these %v", c.Subject, all, v)
		}
	}
}

func newMatrix(t *testing.T) *matrix {
	text := guardmatrix.Policy(func(string, string) string { return "" })
	b, err := policy.Parse("matrix.yaml", []byte(text))
	if err == nil {
		err = b.Validate()
	}
	if err != nil {
		t.Fatal(err)
	}
	set, err := policy.Compile(b)
	if err != nil {
		t.Fatal(err)
	}
	return &matrix{set: set, guard: New(Config{}), counts: map[string]int{}, verdicts: map[string]map[string]int{}}
}

// owner is what the store would say.
func (m *matrix) owner(c *guardmatrix.Cell) OwnerFunc {
	return func(_, consumer string) (string, bool, bool) {
		if consumer != c.Name {
			return "", false, true
		}
		switch c.Consumer {
		case guardmatrix.Mine:
			return c.Role.FullName(), true, true
		case guardmatrix.Theirs:
			return c.Role.Tenant + "/" + guardmatrix.Holder, true, true
		case guardmatrix.Ownerless:
			return "", true, true
		case guardmatrix.Brokers:
			return wire.BrokerAccount, true, true
		}
		return "", false, true
	}
}

func (m *matrix) cell(t *testing.T, c *guardmatrix.Cell) {
	m.cells++
	if m.verdicts[c.Control.Subject] == nil {
		m.verdicts[c.Control.Subject] = map[string]int{}
	}
	switch {
	case c.Allowed:
		m.verdicts[c.Control.Subject]["allowed"]++
	case c.Policy:
		m.verdicts[c.Control.Subject]["malformed"]++
	default:
		m.verdicts[c.Control.Subject]["denied"]++
	}
	p := m.set.Principal(c.Role.Tenant, c.Role.Name)
	if !strings.HasPrefix(c.Subject, "$JS.") && !strings.HasPrefix(c.Subject, "$SYS.") { // admission's
		if class := acl.Classify(p.Tenant, c.Subject); c.Allowed || class != acl.ClassDenied {
			m.fail(t, c, "class %s", class)
		}
		m.counts["refused as no class of subject"]++
		return
	}
	r := Request{Principal: p, Session: session, Subject: c.Subject, Reply: c.ReplyTo, Header: block(t, c.Header), Body: []byte(c.Body.Text), MapInbox: mapInbox}
	v := m.guard.Judge(&r, m.owner(c))
	switch {
	case v.Action == NeedOwner:
		m.fail(t, c, "it asks for an owner that it was told")
	case c.Allowed != (v.Action == Forward):
		m.fail(t, c, "got %s (%v), want allowed %v, by the policy's words %v", outcome(v), v.Refusal, c.Allowed, c.Policy)
	case v.Action == Forward:
		if why := within(c, &v); why != "" {
			m.fail(t, c, "it forwards more than was asked for: %s: %s", why, v.Body)
		}
	case c.Policy && c.Control.Rule != guardmatrix.Nobody && !malformed(v):
		m.fail(t, c, "got %s, and only the form is wrong", outcome(v))
	case !c.Policy && !c.Body.Bad && c.Control.Rule != guardmatrix.Nobody && malformed(v):
		m.fail(t, c, "got %s (%v), and the form is sound", outcome(v), v.Refusal)
	}
	m.counts[outcome(v)]++
	if c.Consumer != guardmatrix.NoConsumer {
		m.unasked(t, c, &r, v)
	}
}

// unasked judges again without knowing the owner: nothing that depends on it passes.
func (m *matrix) unasked(t *testing.T, c *guardmatrix.Cell, r *Request, known Verdict) {
	var asked bool
	v := m.guard.Judge(r, func(string, string) (string, bool, bool) {
		asked = true
		return "", false, false
	})
	switch {
	case asked && v.Action == Forward:
		m.fail(t, c, "forwarded without knowing the owner")
	case !asked && v.Action != known.Action:
		m.fail(t, c, "got %s, and with an owner %s", outcome(v), outcome(known))
	}
	if v.Action == NeedOwner {
		m.asked++
	}
}

func (m *matrix) fail(t *testing.T, c *guardmatrix.Cell, format string, args ...any) {
	m.wrong++
	t.Errorf("%s\n\t%s", c, fmt.Sprintf(format, args...))
}

func malformed(v Verdict) bool {
	return v.Refusal.Code == wire.CodeRequestMalformed || v.Refusal.Code == wire.CodeSubjectMalformed
}

// block is the header of a cell.
func block(t *testing.T, h guardmatrix.Header) *wire.Headers {
	lines := map[guardmatrix.Header]string{guardmatrix.HeaderLevel: "Nats-Required-Api-Level: 2\r\n", guardmatrix.HeaderLever: "Nats-Trace-Dest: orders.1.paid\r\n"}[h]
	if lines == "" {
		return nil
	}
	var out wire.Headers
	if err := out.Parse([]byte(wire.HeaderLine + lines + "\r\n")); err != nil {
		t.Fatal(err)
	}
	return &out
}

// asks is what the server could read out of a payload that names subjects, by the lenient
// decoder that it uses.
type asks struct {
	Last     string   `json:"last_by_subj"`
	Next     string   `json:"next_by_subj"`
	Many     []string `json:"multi_last"`
	Filter   string   `json:"filter"`
	Subject  string   `json:"subject"`
	Subjects string   `json:"subjects_filter"`
	Config   struct {
		Filter   string            `json:"filter_subject"`
		Filters  []string          `json:"filter_subjects"`
		Deliver  string            `json:"deliver_subject"`
		Metadata map[string]string `json:"metadata"`
		Direct   bool              `json:"direct"`
		Sourcing bool              `json:"sourcing"`
	} `json:"config"`
}

// within says how a forwarded request goes beyond its cell, empty if it does not.
func within(c *guardmatrix.Cell, v *Verdict) string {
	switch {
	case v.Subject != c.Subject:
		return "another subject"
	case v.Reply != "" && !strings.HasPrefix(v.Reply, "_INBOX."+session+"."):
		return "reply " + v.Reply
	case len(v.Header) > 0 && c.Header == guardmatrix.HeaderNone:
		return "a header"
	case len(v.Body) == 0 || v.Body[0] != '{':
		return ""
	}
	var a asks
	if err := json.Unmarshal(v.Body, &a); err != nil {
		return err.Error()
	}
	got := append(slices.Concat(a.Many, a.Config.Filters), a.Last, a.Next, a.Filter, a.Subject, a.Config.Filter)
	got = slices.DeleteFunc(got, func(s string) bool { return s == "" })
	want := c.Body.Filters
	switch {
	case strings.Contains(c.Control.Subject, "{filter}") && c.Control.Reads:
		want = nil // in the subject alone
	case c.Control.Rule == guardmatrix.AdminStreams:
		want = got[:min(len(got), 1)] // of what is listed, all of which they may see
	}
	switch {
	case !slices.Equal(got, want):
		return fmt.Sprintf("subjects %q, not %q", got, want)
	case a.Subjects != "":
		return "subjects_filter"
	case a.Config.Direct || a.Config.Sourcing:
		return "a consumer of servers"
	case a.Config.Deliver != "" && !strings.HasPrefix(a.Config.Deliver, "_INBOX."+session+"."):
		return "deliver_subject " + a.Config.Deliver
	}
	if c.Control.Rule == guardmatrix.CreateConsumer {
		owner := c.Role.FullName()
		if c.Consumer == guardmatrix.Theirs {
			owner = c.Role.Tenant + "/" + guardmatrix.Holder
		}
		if got := a.Config.Metadata[wire.MetaOwner]; got != owner {
			return "owner " + got
		}
	}
	return ""
}

package guardmatrix

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Body is one form of a payload, with what it means to the server.
type Body struct {
	Name string
	Text string
	// Bad: it breaks the form. Whoever may otherwise, is told so; nothing is forwarded.
	Bad bool
	// Filters are the subjects that it asks for, none for everything there is.
	Filters []string
	// Deliver says where a consumer is to deliver.
	Deliver Reply
	// Update: only if the consumer exists.
	Update bool
	// Sample: one of the forms that go to a real server with every role and asset.
	Sample bool
}

// Reply is a reply or deliver subject.
type Reply int

// The replies. The zero value is an inbox of the caller, or for Deliver a pull consumer.
const (
	ReplyInbox Reply = iota
	ReplyNone
	ReplyElsewhere
	DeliverInbox
)

// Elsewhere are subjects that are no inbox of the caller.
var Elsewhere = []string{
	"orders.1.paid", "$KV.cfg.k", "$JS.API.STREAM.DELETE.ORDERS", "$JS.ACK.ORDERS.theirs.1.1.1.0.0", "_R_.x", "_GR_.x.y", "$SIGNET.API.keys.ring", "rpc.a.b",
	"_INBOX.*", "_INBOX.>", "_INBOX.", "_INBOX", "_inbox.a", "_INBOX.a.b.1.fail.1.0.$FI", "_INBOX." + strings.Repeat("x", 300),
}

// tooMuch is over the limit of a payload.
var tooMuch = strings.Repeat(" ", 140<<10)

// edge are texts that are no one JSON object. base is a body that is well formed.
func edge(base string) (out []Body) {
	for _, t := range []struct{ name, text string }{
		{"null", "null"},
		{"list", "[" + base + "]"},
		{"string", `"x"`},
		{"bool", "true"},
		{"cut off", base[:len(base)-1]},
		{"two documents", base + base},
		{"trailing text", base + " x"},
		{"comment", base[:len(base)-1] + "/**/}"},
		{"byte order mark", "\ufeff" + base},
		{"not UTF-8", strings.TrimSuffix(base, "}") + sep(base) + "\"x\":\"\xff\"}"},
		{"NUL behind", base + "\x00"},
		{"single quotes", "{'seq':1}"},
		{"unknown member", strings.TrimSuffix(base, "}") + sep(base) + `"zzz":1}`},
		{"empty member", strings.TrimSuffix(base, "}") + sep(base) + `"":1}`},
		{"prototype member", strings.TrimSuffix(base, "}") + sep(base) + `"__proto__":{}}`},
		{"deep", strings.TrimSuffix(base, "}") + sep(base) + `"zzz":` + strings.Repeat("[", 2000) + strings.Repeat("]", 2000) + "}"},
		{"huge", base[:len(base)-1] + tooMuch + "}"},
	} {
		out = append(out, Body{Name: t.name, Text: t.text, Bad: true})
	}
	return out
}

func sep(base string) string {
	if strings.TrimSpace(base) == "{}" {
		return ""
	}
	return ","
}

// good is a value that fits the Go type of a member, and bad one that does not.
func (m *Member) good() string {
	switch {
	case strings.HasPrefix(m.Type, "[]string"):
		return `["orders.1.secret"]`
	case strings.HasPrefix(m.Type, "[]"):
		return "[1]"
	case m.Type == "bool":
		return "true"
	case m.Type == "time.Time":
		return `"2030-01-01T00:00:00Z"`
	case m.Type == "map":
		return `{"a":"b"}`
	case m.Type == "string":
		return `"orders.1.secret"`
	case m.Type == "DeliverPolicy":
		return `"all"`
	case m.Type == "AckPolicy", m.Type == "PriorityPolicy":
		return `"none"`
	case m.Type == "ReplayPolicy":
		return `"instant"`
	case m.Type == "ConsumerAction":
		return `"create"`
	case m.Type == "ConsumerConfig":
		return `{}`
	}
	return "1"
}

func (m *Member) bad() []string {
	switch {
	case m.Type == "string", strings.HasSuffix(m.Type, "Policy"), m.Type == "ConsumerAction":
		return []string{"7", "{}", `["x"]`, "true"}
	case strings.HasPrefix(m.Type, "[]"):
		return []string{`"x"`, "7", "{}", "[{}]"}
	case m.Type == "bool":
		return []string{`"true"`, "1", "{}"}
	case m.Type == "time.Time":
		return []string{"7", `"tomorrow"`, "{}"}
	case m.Type == "map":
		return []string{`"x"`, "[1]", `{"a":1}`}
	case m.Type == "ConsumerConfig":
		return []string{`"x"`, "[]", "7"}
	case m.Type == "uint64":
		return []string{`"x"`, "{}", "-1", "1.5", "1e3", "18446744073709551616"}
	}
	return []string{`"x"`, "{}", "1.5", "1e3", "99999999999999999999"}
}

// twisted are the forms that go wrong member by member: another type, another case, said
// twice. put writes an object with the raw pairs in it in place of the base's own.
func twisted(list []Member, put func(pairs string, replaces ...string) string) (out []Body) {
	add := func(name, text string) { out = append(out, Body{Name: name, Text: text, Bad: true}) }
	for _, m := range list {
		for i, v := range m.bad() {
			add(fmt.Sprintf("%s of a wrong type %d", m.Name, i), put(fmt.Sprintf("%q:%s", m.Name, v), m.Name))
		}
		pair := fmt.Sprintf("%q:%s", m.Name, m.good())
		add(title(m.Name)+" before "+m.Name, put(fmt.Sprintf("%q:%s,%s", title(m.Name), m.good(), pair), m.Name))
		for _, twin := range []string{strings.ToUpper(m.Name), title(m.Name), strings.ReplaceAll(m.Name, "s", "ſ"), strings.ReplaceAll(m.Name, "_", "")} {
			if twin == m.Name {
				continue
			}
			add(twin+" for "+m.Name, put(fmt.Sprintf("%q:%s", twin, m.good()), m.Name))
			add(twin+" behind "+m.Name, put(fmt.Sprintf("%s,%q:%s", pair, twin, m.good()), m.Name))
		}
		add(m.Name+" twice", put(pair+","+pair, m.Name))
		add(m.Name+" twice by an escape", put(fmt.Sprintf(`%s,"\u%04x%s":%s`, pair, m.Name[0], m.Name[1:], m.good()), m.Name))
	}
	return out
}

// title is how Go names it: Filter_Subject.
func title(s string) string {
	parts := strings.Split(s, "_")
	for i, p := range parts {
		if p != "" {
			parts[i] = strings.ToUpper(p[:1]) + p[1:]
		}
	}
	return strings.Join(parts, "_")
}

// pairs writes an object of raw values, sorted, without those that are replaced, and extra
// pairs behind.
func pairs(values map[string]string, extra string, replaces ...string) string {
	var list []string
	for name, v := range values {
		if !slices.Contains(replaces, name) {
			list = append(list, fmt.Sprintf("%q:%s", name, v))
		}
	}
	slices.Sort(list)
	if extra != "" {
		list = append(list, extra)
	}
	return "{" + strings.Join(list, ",") + "}"
}

func quote(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// flat are the forms of a request whose payload is one flat object: the sound ones given,
// the edges, and what twisting each member makes of base.
func flat(base string, t *target, filters []string, sound ...Body) []Body {
	if !t.twist {
		return sound
	}
	values := map[string]string{}
	var raw map[string]json.RawMessage
	if err := json.Unmarshal([]byte(base), &raw); err != nil {
		panic(err)
	}
	for k, v := range raw {
		values[k] = string(v)
	}
	wrong := append(edge(base), twisted(t.members, func(p string, replaces ...string) string { return pairs(values, p, replaces...) })...)
	for i := range wrong {
		wrong[i].Filters = filters
	}
	return append(sound, wrong...)
}

package guardmatrix

import "slices"

// nothing: requests without a payload.
func nothing(t *target) []Body {
	out := []Body{{Name: "empty", Sample: true}, {Name: "{}", Text: "{}"}}
	if !t.twist {
		return out
	}
	return append(append(out, edge("{}")...), Body{Name: "a member", Text: `{"seq":1}`, Bad: true})
}

// ignored: whatever it is, the server does not see it.
func ignored(t *target) []Body {
	out := nothing(t)
	for i := range out {
		out[i].Bad = false
	}
	return out
}

// empty: a payload there must not be.
func empty(*target) []Body {
	return []Body{{Name: "empty", Sample: true}, {Name: "{}", Text: "{}", Bad: true}, {Name: "+ACK", Text: "+ACK", Bad: true}, {Name: "space", Text: " ", Bad: true}}
}

// some are forms for subjects that no payload opens.
func some(*target) []Body {
	return []Body{{Name: "empty", Sample: true}, {Name: "{}", Text: "{}"}, {Name: "seq", Text: `{"seq":1}`}, {Name: "+ACK", Text: "+ACK"}}
}

// optional: an object or nothing.
func optional(base string) func(*target) []Body {
	return func(t *target) []Body {
		return flat(base, t, nil, Body{Name: "empty", Sample: true}, Body{Name: "{}", Text: "{}"}, Body{Name: "sound", Text: base, Sample: true},
			Body{Name: "null member", Text: pairs(map[string]string{t.members[0].Name: "null"}, "")})
	}
}

// required: an object.
func required(base string) func(*target) []Body {
	return func(t *target) []Body {
		return flat(base, t, nil, Body{Name: "empty", Bad: true}, Body{Name: "{}", Text: "{}"}, Body{Name: "sound", Text: base, Sample: true})
	}
}

// filters are those that make a difference on a stream: one's part, what is not granted,
// wildcards over it, and subjects of elsewhere.
func filters(s *Stream) []string {
	out := []string{"orders.1.paid", "orders.*.paid", "orders.1.secret", "orders.*.*", "orders.>", "*.1.paid", ">", "*", "*.>", "_INBOX.>", "$SYS.>", "rpc.a.b"}
	switch s.Kind {
	case Events:
		return append(out, "side.1", "side.>", "telemetry.probe", "$KV.cfg.k")
	case KV:
		p := "$KV." + s.Bucket
		return append(out[3:8], p+".k", p+".a.b", p+".*", p+".>", p, "$KV.*.k", "$KV.>", "$KV.secret.k", "$KV.cfg.k")
	case Objects:
		p := "$O." + s.Bucket
		return append(out[3:8], p+".M.bmFtZQ==", p+".C.abc", p+".C.>", p+".>", "$O.*.M.x", "$O.>", "$O.vault.M.x", "$KV.cfg.k")
	}
	return []string{"orders.1.paid", ">", "$KV.cfg.k", "$SIGNET.DLQ.>"}
}

func nameStreams(t *target) []Body {
	sound := []Body{{Name: "empty", Sample: true}, {Name: "{}", Text: "{}"}, {Name: "empty subject", Text: `{"subject":""}`}}
	for i := range Streams {
		for _, f := range filters(&Streams[i]) {
			sound = append(sound, Body{Name: f, Text: pairs(map[string]string{"subject": quote(f), "offset": "0"}, ""), Filters: []string{f}, Sample: true})
		}
	}
	return flat(`{"subject":"orders.1.paid"}`, t, []string{"orders.1.paid"}, sound...)
}

func purges(t *target) []Body {
	sound := []Body{{Name: "empty"}, {Name: "{}", Text: "{}"}, {Name: "keep", Text: `{"keep":1}`}, {Name: "seq", Text: `{"seq":9}`}}
	for _, f := range filters(t.stream) {
		sound = append(sound,
			Body{Name: f, Text: pairs(map[string]string{"filter": quote(f)}, ""), Filters: []string{f}},
			Body{Name: f + " keep", Text: pairs(map[string]string{"filter": quote(f), "keep": "1"}, ""), Filters: []string{f}, Sample: true},
			Body{Name: f + " seq and keep", Text: pairs(map[string]string{"filter": quote(f), "keep": "1", "seq": "7"}, ""), Filters: []string{f}, Bad: true})
	}
	base := t.base()
	return flat(pairs(map[string]string{"filter": quote(base)}, ""), t, []string{base}, sound...)
}

// base is a filter of the stream that most who may read may read.
func (t *target) base() string {
	switch t.stream.Kind {
	case KV:
		return "$KV." + t.stream.Bucket + ".k"
	case Objects:
		return "$O." + t.stream.Bucket + ".M.bmFtZQ=="
	default:
		return "orders.1.paid"
	}
}

// gets are the selectors that both forms of a get know.
func gets(t *target) (out []Body) {
	const when = `"2020-01-01T00:00:00Z"`
	whole := func(name, text string) { out = append(out, Body{Name: name, Text: text, Sample: true}) }
	bad := func(name, text string) {
		out = append(out, Body{Name: name, Text: text, Bad: true, Filters: []string{t.base()}})
	}
	whole("seq", `{"seq":1}`)
	whole("seq without headers", `{"seq":1,"no_hdr":true}`)
	whole("start", `{"start_time":`+when+`}`)
	for _, f := range filters(t.stream) {
		q := quote(f)
		for _, text := range []string{`{"last_by_subj":` + q + `}`, `{"next_by_subj":` + q + `}`, `{"next_by_subj":` + q + `,"seq":2}`, `{"next_by_subj":` + q + `,"start_time":` + when + `}`} {
			out = append(out, Body{Name: text, Text: text, Filters: []string{f}, Sample: true})
		}
		bad(f+" last and seq", `{"last_by_subj":`+q+`,"seq":1}`)
		bad(f+" last and next", `{"last_by_subj":`+quote(t.base())+`,"next_by_subj":`+q+`}`)
		bad(f+" last and many", `{"last_by_subj":`+quote(t.base())+`,"multi_last":[`+q+`]}`)
		bad(f+" next and many", `{"next_by_subj":`+quote(t.base())+`,"multi_last":[`+q+`]}`)
	}
	bad("nothing", "{}")
	bad("no payload", "")
	bad("seq 0", `{"seq":0}`)
	bad("seq and start", `{"seq":1,"start_time":`+when+`}`)
	return out
}

func msgGets(t *target) []Body {
	sound := gets(t)
	// What this form ignores would hide a sequence behind a granted subject.
	for _, m := range []string{`"batch":1`, `"max_bytes":1`, `"multi_last":[` + quote(t.base()) + `]`, `"up_to_seq":1`, `"up_to_time":"2030-01-01T00:00:00Z"`} {
		sound = append(sound, Body{Name: "seq and " + m, Text: `{"seq":1,` + m + `}`, Bad: true})
	}
	return flat(pairs(map[string]string{"next_by_subj": quote(t.base())}, ""), t, []string{t.base()}, sound...)
}

func directGets(t *target) []Body {
	sound := append(gets(t),
		Body{Name: "batch", Text: `{"seq":1,"batch":10}`, Sample: true},
		Body{Name: "batch from a time", Text: `{"start_time":"2020-01-01T00:00:00Z","batch":10,"max_bytes":1000}`, Sample: true},
		Body{Name: "negative batch", Text: `{"seq":1,"batch":-1}`, Bad: true},
		Body{Name: "negative bytes", Text: `{"seq":1,"max_bytes":-1}`, Bad: true},
		Body{Name: "empty subject of many", Text: `{"multi_last":[` + quote(t.base()) + `,""]}`, Bad: true, Filters: []string{t.base()}},
		Body{Name: "no subject of many", Text: `{"multi_last":[]}`, Bad: true},
		Body{Name: "two ends", Text: `{"multi_last":[` + quote(t.base()) + `],"up_to_seq":3,"up_to_time":"2030-01-01T00:00:00Z"}`, Bad: true, Filters: []string{t.base()}},
	)
	for _, f := range filters(t.stream) {
		for _, text := range []string{
			`{"multi_last":[` + quote(f) + `]}`, `{"multi_last":[` + quote(f) + `],"batch":5,"up_to_seq":9}`,
			`{"multi_last":[` + quote(f) + `],"up_to_time":"2030-01-01T00:00:00Z","no_hdr":true}`,
			`{"next_by_subj":` + quote(f) + `,"seq":1,"batch":10,"max_bytes":100000}`,
		} {
			sound = append(sound, Body{Name: text, Text: text, Filters: []string{f}, Sample: true})
		}
		for _, list := range [][]string{{t.base(), f}, {f, t.base()}} {
			sound = append(sound, Body{Name: "many " + list[0] + " " + list[1], Text: pairs(map[string]string{"multi_last": quote(list)}, ""), Filters: list, Sample: true})
		}
	}
	return flat(pairs(map[string]string{"next_by_subj": quote(t.base())}, ""), t, []string{t.base()}, sound...)
}

// lastGets: the subject stands in the request's subject, and every other selector is left
// out on the way.
func lastGets(t *target) []Body {
	f := []string{t.filter}
	sound := []Body{
		{Name: "empty", Filters: f, Sample: true},
		{Name: "{}", Text: "{}", Filters: f},
		{Name: "selectors", Text: `{"seq":1,"no_hdr":true,"max_bytes":1000,"multi_last":["orders.1.secret"],"next_by_subj":">"}`, Filters: f, Sample: true},
		{Name: "negative bytes", Text: `{"max_bytes":-1}`, Bad: true, Filters: f},
	}
	return flat(`{"no_hdr":true}`, t, f, sound...)
}

// nexts are pull requests: nothing, a number, or an object.
func nexts(t *target) []Body {
	full := map[string]string{
		"batch": "5", "expires": "1000000", "max_bytes": "100000", "no_wait": "true", "idle_heartbeat": "400000",
		"group": `"g"`, "min_pending": "1", "min_ack_pending": "1", "id": `"x"`, "priority": "3",
	}
	sound := []Body{
		{Name: "empty", Sample: true},
		{Name: "{}", Text: "{}", Sample: true},
		{Name: "number", Text: "5", Sample: true},
		{Name: "number and line", Text: " 5\n"},
		{Name: "everything", Text: pairs(full, ""), Sample: true},
		{Name: "space before", Text: "\r\n " + pairs(full, "")},
	}
	for name, v := range full {
		sound = append(sound, Body{Name: name + " alone", Text: pairs(map[string]string{name: v}, ""), Sample: true})
		if v[0] != '"' && v != "true" {
			sound = append(sound, Body{Name: name + " negative", Text: pairs(map[string]string{name: "-1"}, ""), Bad: true})
		}
	}
	for _, text := range []string{"-1", "ten", "1e3", "5 5", "0x5", "5.5", "1_000", "99999999999999999999", "+NXT", "\x005"} {
		sound = append(sound, Body{Name: "text " + text, Text: text, Bad: true})
	}
	return flat(pairs(full, ""), t, nil, sound...)
}

// ackNexts are those acks that ask for another event.
func ackNexts(t *target) (out []Body) {
	t.members = nil
	for _, b := range nexts(t) {
		b.Name, b.Text = "+NXT "+b.Name, "+NXT "+b.Text
		out = append(out, b)
	}
	return append(out, Body{Name: "+NXT alone", Text: "+NXT", Sample: true}, Body{Name: "+NXT5", Text: "+NXT5"})
}

func acks(*target) (out []Body) {
	for _, text := range []string{"", "+ACK", "+OK", "-NAK", "-NAK 1s", `-NAK {"delay":1000}`, "+WPI", "+TERM", "+TERM no use"} {
		out = append(out, Body{Name: "ack " + text, Text: text, Sample: text != "+TERM no use"})
	}
	for _, text := range []string{
		"+ack", "ACK", "+ACK ", "+HUH", "-ACK", "-NAK 5", `-NAK {"Delay":1}`, `-NAK {"delay":1,"delay":2}`, `-NAK {"delay":-1}`, `-NAK {"zzz":1}`, "-NAK -5s",
		"+TERM a\r\nb", "+TERM \x00", "{}", "null", "+NAK", " +ACK",
	} {
		out = append(out, Body{Name: "ack " + text, Text: text, Bad: true})
	}
	return slices.Clip(out)
}

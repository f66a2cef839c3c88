package guardmatrix

import (
	"maps"
	"strings"
)

// creation writes a request to make a consumer, from the raw values of its two objects.
func creation(outer, config map[string]string) string {
	all := maps.Clone(outer)
	all["config"] = pairs(config, "")
	return pairs(all, "")
}

func creates(t *target) []Body        { return consumerBodies(t, false) }
func durableCreates(t *target) []Body { return consumerBodies(t, true) }

// consumerBodies are the forms of a request that makes a consumer.
func consumerBodies(t *target, durable bool) (out []Body) {
	outer := map[string]string{"stream_name": quote(t.stream.Name), "action": `""`}
	config := map[string]string{"ack_policy": `"none"`, "mem_storage": "true"}
	if durable {
		config["durable_name"] = quote(t.name)
	} else if t.name != "" {
		config["name"] = quote(t.name)
	}
	with := func(more map[string]string) map[string]string {
		c := maps.Clone(config)
		maps.Copy(c, more)
		return c
	}
	add := func(name string, filters []string, bad, sample bool, more map[string]string) {
		out = append(out, Body{Name: name, Text: creation(outer, with(more)), Filters: filters, Bad: bad, Sample: sample})
	}
	one := t.base()
	if t.filter != "" {
		one = t.filter
	}
	base := map[string]string{"filter_subject": quote(one)}

	// Filters, single and plural. A filter in the subject stands in the payload too, alone.
	slot := t.filter != ""
	add("no filter", nil, slot, true, nil)
	add("empty filter", nil, slot, false, map[string]string{"filter_subject": `""`})
	add("no filters", nil, slot, false, map[string]string{"filter_subjects": `[]`})
	list := filters(t.stream)
	if slot {
		list = append(list[:4:4], t.filter)
	}
	for _, f := range list {
		add("filter "+f, []string{f}, slot && f != t.filter, true, map[string]string{"filter_subject": quote(f)})
		add("filters "+f, []string{f}, slot, true, map[string]string{"filter_subjects": quote([]string{f})})
		add("filters with "+f, []string{one, f}, slot, true, map[string]string{"filter_subjects": quote([]string{one, f})})
		add("filter and filters "+f, []string{one}, true, false, map[string]string{"filter_subject": quote(one), "filter_subjects": quote([]string{f})})
	}
	add("empty filter in filters", []string{one}, true, false, map[string]string{"filter_subjects": quote([]string{one, ""})})

	more := func(name string, bad, sample bool, values map[string]string) {
		all := maps.Clone(base)
		maps.Copy(all, values)
		add(name, []string{one}, bad, sample, all)
	}
	pushed(&out, more)
	names(t, durable, more)
	outerForms(&out, t, outer, with(base), one)
	more("owner of another", false, false, map[string]string{"metadata": `{"k":"v"}`})
	for _, m := range []string{"direct", "sourcing"} {
		more(m, true, false, map[string]string{m: "true"})
	}
	for m, v := range map[string]string{
		"deliver_policy": `"everything"`, "ack_policy": `"flow_control"`, "replay_policy": `"fast"`, "priority_policy": `"first"`, "max_deliver": "-2", "max_waiting": "-2",
		"max_ack_pending": "-2", "ack_wait": "-1", "idle_heartbeat": "-1", "num_replicas": "-1", "backoff": "[-1]", "deliver_group": `"a b"`,
		"metadata": `{"k":"` + strings.Repeat("x", 5000) + `"}`,
	} {
		more(m+" out of bounds", true, false, map[string]string{m: v})
	}

	if !t.twist {
		return out
	}
	for _, b := range edge(creation(outer, with(base))) {
		b.Filters = []string{one}
		out = append(out, b)
	}
	put := func(p string, replaces ...string) string {
		all := maps.Clone(outer)
		all["config"] = pairs(with(base), p, replaces...)
		return pairs(all, "")
	}
	wrong := twisted(t.members, put)
	// Members of the outer object, which in the inner one are unknown.
	wrong = append(wrong, twisted([]Member{{"stream_name", "string"}, {"config", "ConsumerConfig"}, {"action", "ConsumerAction"}, {"pedantic", "bool"}}, func(p string, replaces ...string) string {
		all := maps.Clone(outer)
		all["config"] = pairs(with(base), "")
		return pairs(all, p, replaces...)
	})...)
	for i := range wrong {
		wrong[i].Filters = []string{one}
	}
	return append(out, wrong...)
}

// pushed are the forms that say where to deliver.
func pushed(out *[]Body, more func(string, bool, bool, map[string]string)) {
	last := func(d Reply) { (*out)[len(*out)-1].Deliver = d }
	more("push", false, true, map[string]string{"deliver_subject": `"_INBOX.push"`})
	last(DeliverInbox)
	more("push with flow control and a group", false, false, map[string]string{"deliver_subject": `"_INBOX.push"`, "deliver_group": `"g"`, "flow_control": "true", "idle_heartbeat": "1000000000"})
	last(DeliverInbox)
	for _, s := range Elsewhere {
		more("push to "+s, false, true, map[string]string{"deliver_subject": quote(s)})
		last(ReplyElsewhere)
	}
}

// names: the payload must not name another consumer than the subject.
func names(t *target, durable bool, more func(string, bool, bool, map[string]string)) {
	if t.name == "" {
		more("durable without a name in the subject", true, false, map[string]string{"durable_name": `"d"`})
		more("malformed name", true, false, map[string]string{"name": `"a.b"`})
		return
	}
	more("another name", true, false, map[string]string{"name": `"theirs2"`})
	more("another durable name", true, false, map[string]string{"durable_name": `"theirs2"`})
	if !durable {
		more("durable", false, true, map[string]string{"durable_name": quote(t.name)})
	}
}

// outerForms are those of the members around the configuration.
func outerForms(out *[]Body, t *target, outer, config map[string]string, one string) {
	add := func(name string, bad, update, sample bool, values map[string]string) {
		all := maps.Clone(outer)
		maps.Copy(all, values)
		*out = append(*out, Body{Name: name, Text: creation(all, config), Filters: []string{one}, Bad: bad, Update: update, Sample: sample})
	}
	add("create", false, false, true, map[string]string{"action": `"create"`})
	if t.name != "" {
		add("update", false, true, true, map[string]string{"action": `"update"`})
	}
	add("unknown action", true, false, false, map[string]string{"action": `"upsert"`})
	add("pedantic", false, false, true, map[string]string{"pedantic": "true"})
	add("another stream", true, false, false, map[string]string{"stream_name": `"SIDE2"`})
	add("no stream", true, false, false, map[string]string{"stream_name": `""`})
	for _, m := range []string{"sources", "mirror", "republish", "subject_transform", "subjects", "placement", "allow_direct"} {
		add("stream member "+m, true, false, false, map[string]string{m: `{"name":"KV_secret"}`})
	}
}

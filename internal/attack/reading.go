package attack

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/signetbus/signet/internal/wire"
)

const api = "$JS.API."

// readCodes are the refusals of reads that reach outside the grants.
var readCodes = codes(wire.CodeFilterDenied, wire.CodeRequestMalformed, wire.CodeAPIDenied)

// reading are attacks on what is stored and on what others send.
var reading = []Attack{
	{
		Number: 51, Name: "read escape: wider filter", Control: "every filter inside one grant", Row: "5/18",
		Does: "makes consumers with the victim's filter, a wider one and none, and pulls", run: escape(
			map[string]any{"filter_subject": "attack.victim.>"}, map[string]any{"filter_subject": "attack.>"}, map[string]any{},
		),
	},
	{
		Number: 52, Name: "read escape: list of filters", Control: "each filter inside one grant", Row: "5/18",
		Does: "makes a consumer with a list of filters, of which one is granted, and pulls", run: escape(
			map[string]any{"filter_subjects": []string{"attack.attacker.>", "attack.victim.>"}},
		),
	},
	{Number: 53, Name: "read escape: two filters in one body", Control: "strict decoding, encoded again", Row: "5", Does: "has the filter in the body twice, one of them granted, and pulls", run: twiceFiltered},
	{
		Number: 54, Name: "read escape: direct get by subject", Control: "reads by subject inside a grant", Row: "5/17",
		Does: "asks for the last event of the victim's subject, in three forms", run: fetching(func(subject string, _ uint64) []ask {
			return []ask{
				{subject: api + "DIRECT.GET." + stream + "." + subject},
				{subject: api + "DIRECT.GET." + stream, body: fmt.Sprintf(`{"last_by_subj":%q}`, subject)},
				{subject: api + "STREAM.MSG.GET." + stream, body: fmt.Sprintf(`{"last_by_subj":%q}`, subject)},
			}
		}),
	},
	{
		Number: 55, Name: "read escape: direct get by sequence", Control: "by sequence: the whole stream granted", Row: "5/17",
		Does: "asks for the sequence of the victim's event", run: fetching(func(_ string, seq uint64) []ask {
			return []ask{
				{subject: api + "DIRECT.GET." + stream, body: fmt.Sprintf(`{"seq":%d}`, seq)}, {subject: api + "STREAM.MSG.GET." + stream, body: fmt.Sprintf(`{"seq":%d}`, seq)},
			}
		}),
	},
	{
		Number: 56, Name: "read escape: direct get of many", Control: "each subject inside a grant", Row: "5/17",
		Does: "asks for the last events of a list of subjects, of which one is granted, and of those after a time", run: fetching(func(subject string, _ uint64) []ask {
			return []ask{
				{subject: api + "DIRECT.GET." + stream, body: fmt.Sprintf(`{"multi_last":["attack.shared.ready",%q],"batch":9}`, subject)},
				{subject: api + "DIRECT.GET." + stream, body: fmt.Sprintf(`{"next_by_subj":%q}`, subject)},
			}
		}),
	},
	{
		Number: 57, Name: "subscription wider than the grant", Control: "a filter lies inside one grant", Row: "5",
		Does: "subscribes to the victim's events, to all of them, and in a queue, by which denials of nats-server were passed",
		run: listening(codes(wire.CodeSubscribeDenied), []string{"attack.victim.>", "attack.>", "attack.*.overheard q", "*.victim.>", ">"},
			provoking(victim, "attack.victim.overheard")),
	},
	{Number: 58, Name: "inbox theft: listen", Control: "session token in every inbox", Row: "2/08", Does: "subscribes to all inboxes while the victim asks for something", run: stealInbox},
	{Number: 59, Name: "inbox theft: write", Control: "only inboxes that were handed to the connection", Row: "2/08", Does: "writes to an inbox of the victim's whose name it knows", run: writeInbox},
	{Number: 60, Name: "forged acknowledgement", Control: "readers are not handed the publisher's inbox", Row: "2", Does: "answers the victim's publish in the stream's name, as one who may read the event", run: forgeAck},
	{
		Number: 61, Name: "bucket without a grant", Control: "buckets are judged as buckets", Row: "5",
		Does: "reads a key of a bucket by direct get and consumer, and writes one", run: readBucket,
	},
	{
		Number: 62, Name: "dead letters", Control: "the streams DLQ and RETRY are the admin API's", Row: "5",
		Does: "reads dead letters, and what is redriven to others, by direct get and by a consumer",
		run: asking(attacker, readCodes, answered,
			ask{subject: api + "DIRECT.GET." + wire.StreamDLQ, body: `{"seq":1}`}, ask{subject: api + "STREAM.MSG.GET." + wire.StreamDLQ, body: `{"seq":1}`},
			ask{subject: api + "CONSUMER.CREATE." + wire.StreamDLQ + ".attack", body: `{"stream_name":"DLQ","config":{"name":"attack","inactive_threshold":60000000000}}`},
			ask{subject: api + "STREAM.MSG.GET." + wire.StreamRetry, body: `{"seq":1}`},
			ask{subject: api + "CONSUMER.CREATE." + wire.StreamRetry + ".attack", body: `{"stream_name":"RETRY","config":{"name":"attack","inactive_threshold":60000000000}}`}),
	},
	{Number: 63, Name: "another tenant", Control: "one account per tenant", Row: "5", Does: "listens to, and asks the store for, an event of the same subject in another tenant", run: otherTenant},
}

// secret is an event that only the victim may read.
func (r *Rig) secret(ctx context.Context) (subject, marker string, sequence uint64, err error) {
	subject, marker = "attack.victim."+token(), token()
	a, err := r.by(ctx, victim, subject, nil, marker)
	if err != nil {
		return "", "", 0, err
	}
	return subject, marker, a.sequence, nil
}

// escape makes consumers with configurations that are not granted, and reads through
// those that are made.
func escape(configs ...map[string]any) runner {
	return func(ctx context.Context, r *Rig) (Outcome, error) {
		var bodies []string
		var subjects []string
		for _, config := range configs {
			name := "e" + token()
			own := map[string]any{"ack_policy": "none"}
			for k, v := range config {
				own[k] = v
			}
			s := api + "CONSUMER.CREATE." + stream + "." + name
			if f, ok := config["filter_subject"].(string); ok {
				s += "." + f
			}
			subjects, bodies = append(subjects, s), append(bodies, consumerBody(name, own))
		}
		return readThrough(ctx, r, subjects, bodies)
	}
}

func twiceFiltered(ctx context.Context, r *Rig) (Outcome, error) {
	name, again := "e"+token(), "e"+token()
	body := func(name, filters string) string {
		return fmt.Sprintf(`{"stream_name":%q,"config":{"name":%q,"ack_policy":"none","inactive_threshold":60000000000,%s}}`, stream, name, filters)
	}
	return readThrough(ctx, r, []string{api + "CONSUMER.CREATE." + stream + "." + name, api + "CONSUMER.CREATE." + stream + "." + again}, []string{
		body(name, `"filter_subject":"attack.attacker.>","filter_subject":"attack.victim.>"`),
		body(again, `"filter_subject":"attack.attacker.>","Filter_Subject":"attack.victim.>"`),
	})
}

// readThrough asks for consumers; where one is made it pulls until it finds the victim's
// event.
func readThrough(ctx context.Context, r *Rig, subjects, bodies []string) (Outcome, error) {
	_, marker, _, err := r.secret(ctx)
	if err != nil {
		return Outcome{}, err
	}
	c, err := r.as(ctx, attacker)
	if err != nil {
		return Outcome{}, err
	}
	defer c.Close()
	var out Outcome
	for i, s := range subjects {
		a, err := c.request(ctx, s, nil, bodies[i])
		if err != nil {
			return Outcome{}, err
		}
		if a.code+a.api != 0 {
			if out, err = judgeAnswer(a, readCodes, answered); err != nil {
				return out, err
			}
			continue
		}
		var made struct {
			Name string `json:"name"`
		}
		if err := json.Unmarshal([]byte(a.body), &made); err != nil || made.Name == "" {
			return Outcome{}, fmt.Errorf("answered by %q", short(a.body))
		}
		defer c.drop(ctx, made.Name)
		if found, err := c.pull(ctx, made.Name, marker); err != nil || found {
			if found {
				return succeeded("a consumer gave the victim's event")
			}
			return Outcome{}, err
		}
		return Outcome{}, fmt.Errorf("a consumer was made, and did not give the victim's event")
	}
	return out, nil
}

// pull reads a consumer to its end, and says whether an event with the marker came.
func (c *conn) pull(ctx context.Context, name, marker string) (bool, error) {
	for range 2000 {
		a, err := c.request(ctx, api+"CONSUMER.MSG.NEXT."+stream+"."+name, nil, `{"batch":1,"no_wait":true}`)
		switch {
		case err != nil:
			return false, err
		case strings.Contains(a.body, marker):
			return true, nil
		case strings.HasPrefix(a.header, "NATS/1.0 "):
			return false, nil // 404: no more; or a refusal
		}
	}
	return false, nil
}

// fetching asks the store for the victim's event.
func fetching(list func(subject string, sequence uint64) []ask) runner {
	return func(ctx context.Context, r *Rig) (Outcome, error) {
		subject, marker, sequence, err := r.secret(ctx)
		if err != nil {
			return Outcome{}, err
		}
		c, err := r.as(ctx, attacker)
		if err != nil {
			return Outcome{}, err
		}
		defer c.Close()
		return askAll(ctx, c, readCodes, func(a *answer) string {
			// STREAM.MSG.GET answers in JSON, with the data in base64: that it answers is enough.
			if strings.Contains(a.body, marker) || a.code+a.api == 0 && !a.noticed && strings.Contains(a.body, `"data"`) {
				return "it gave the victim's event"
			}
			for i := range c.heard { // a batch is several messages
				if strings.Contains(c.heard[i].body, marker) {
					return "it gave the victim's event"
				}
			}
			if f, ok, _ := c.next(ctx, hearing, "r", func(f *frame) bool { return strings.Contains(f.body, marker) }); ok {
				return "it gave the victim's event, as " + f.subject
			}
			return ""
		}, list(subject, sequence)...)
	}
}

func stealInbox(ctx context.Context, r *Rig) (Outcome, error) {
	c, err := r.as(ctx, attacker)
	if err != nil {
		return Outcome{}, err
	}
	defer c.Close()
	for _, f := range []string{"_INBOX.>", "_INBOX.*.*", "_INBOX.> q"} {
		if _, err := c.subscribe(f); err != nil {
			return Outcome{}, err
		}
	}
	if _, err := c.sync(ctx); err != nil { // which of them are refused says nothing yet
		return Outcome{}, err
	}
	v, err := r.as(ctx, victim)
	if err != nil {
		return Outcome{}, err
	}
	defer v.Close()
	subject := "attack.victim." + token()
	if _, err := granted(ctx, v, subject, nil, "x"); err != nil {
		return Outcome{}, err
	}
	marker := token() // in the answer, and of a length that nobody else asks for
	if a, err := v.request(ctx, api+"STREAM.INFO."+stream, nil, ""); err != nil || answered(a) == "" {
		return Outcome{}, fmt.Errorf("the victim's request was not answered: %w", err)
	}
	if err := v.send("SUB " + v.inbox + ".own own\r\n" + pub(v.inbox+".own", "", nil, marker)); err != nil {
		return Outcome{}, err
	}
	if f, ok, err := v.next(ctx, hearing, "own", nil); err != nil || !ok || f.body != marker {
		return Outcome{}, fmt.Errorf("the victim does not hear its own inbox: %w", err)
	}
	came, err := c.overhears(ctx, v.inbox, false)
	if err != nil {
		return Outcome{}, err
	}
	if came == nil {
		came, err = c.overhears(ctx, marker, true)
	}
	if err != nil {
		return Outcome{}, err
	}
	if came != nil {
		return succeeded("heard what came to %s", came.subject)
	}
	return refused("", "the victim heard its answers, the attacker none")
}

func writeInbox(ctx context.Context, r *Rig) (Outcome, error) {
	v, err := r.as(ctx, victim)
	if err != nil {
		return Outcome{}, err
	}
	defer v.Close()
	if err := v.send("SUB " + v.inbox + ".answer own\r\n"); err != nil {
		return Outcome{}, err
	}
	if errs, err := v.sync(ctx); err != nil || len(errs) > 0 {
		return Outcome{}, fmt.Errorf("%w: %w", errorTold(errs), err)
	}
	c, err := r.as(ctx, attacker)
	if err != nil {
		return Outcome{}, err
	}
	defer c.Close()
	if err := c.send(pub(v.inbox+".answer", "", nil, "forged")); err != nil {
		return Outcome{}, err
	}
	errs, err := c.sync(ctx)
	if err != nil {
		return Outcome{}, err
	}
	wait := hearing
	if len(errs) > 0 {
		wait = hearing / 10
	}
	f, ok, err := v.next(ctx, wait, "own", nil)
	if err != nil {
		return Outcome{}, err
	}
	if ok {
		return judgeTold(errs, 1, &f, nil)
	}
	return judgeTold(errs, 1, nil, codes(wire.CodeInboxDenied))
}

func forgeAck(ctx context.Context, r *Rig) (Outcome, error) {
	c, err := r.as(ctx, attacker)
	if err != nil {
		return Outcome{}, err
	}
	defer c.Close()
	sid, err := c.subscribe("attack.shared.acked")
	if err != nil {
		return Outcome{}, err
	}
	if errs, err := c.sync(ctx); err != nil || len(errs) > 0 {
		return Outcome{}, fmt.Errorf("%w: %w", errorTold(errs), err)
	}
	marker := token()
	if _, err := r.by(ctx, victim, "attack.shared.acked", nil, marker); err != nil {
		return Outcome{}, err
	}
	f, ok, err := c.next(ctx, 10*hearing, sid, func(f *frame) bool { return f.body == marker })
	if err != nil || !ok {
		return Outcome{}, fmt.Errorf("the event did not come: %w", err)
	}
	if f.reply == "" {
		return refused("", "the event came without the publisher's inbox")
	}
	if err := c.send(pub(f.reply, "", nil, `{"stream":"FORGED","seq":1}`)); err != nil {
		return Outcome{}, err
	}
	errs, err := c.sync(ctx)
	if err != nil {
		return Outcome{}, err
	}
	if len(errs) == 0 {
		return succeeded("an answer was taken for %s, where the publisher waits", f.reply)
	}
	return judgeTold(errs, 1, nil, codes(wire.CodeInboxDenied))
}

func readBucket(ctx context.Context, r *Rig) (Outcome, error) {
	if _, err := r.by(ctx, victim, "$KV."+bucket+".pin", nil, "secret"); err != nil {
		return Outcome{}, err
	}
	c, err := r.as(ctx, attacker)
	if err != nil {
		return Outcome{}, err
	}
	defer c.Close()
	out, err := askAll(ctx, c, codes(wire.CodeBucketDenied), stored, ask{subject: "$KV." + bucket + ".attacked", body: "x"})
	if err != nil || out.Verdict == Succeeded {
		return out, err
	}
	return askAll(ctx, c, readCodes, answered,
		ask{subject: api + "DIRECT.GET.KV_" + bucket + ".$KV." + bucket + ".pin"}, ask{subject: api + "STREAM.MSG.GET.KV_" + bucket, body: `{"seq":1}`})
}

// otherTenant: the same subjects and the same stream in two tenants.
func otherTenant(ctx context.Context, r *Rig) (Outcome, error) {
	c, err := r.as(ctx, attacker)
	if err != nil {
		return Outcome{}, err
	}
	defer c.Close()
	if _, err := c.subscribe("attack.shared.>"); err != nil {
		return Outcome{}, err
	}
	if errs, err := c.sync(ctx); err != nil || len(errs) > 0 {
		return Outcome{}, fmt.Errorf("%w: %w", errorTold(errs), err)
	}
	subject, marker, own := "attack.shared."+token(), token(), token()
	if _, err := r.by(ctx, stranger, subject, nil, marker); err != nil {
		return Outcome{}, err
	}
	if _, err := r.by(ctx, victim, "attack.shared.own", nil, own); err != nil {
		return Outcome{}, err
	}
	// What comes of one's own tenant shows that one listens.
	if came, err := c.overhears(ctx, own, false); err != nil || came == nil {
		return Outcome{}, fmt.Errorf("the subscription hears nothing of its own tenant: %w", err)
	}
	came, err := c.overhears(ctx, marker, true)
	if err != nil {
		return Outcome{}, err
	}
	a, err := c.request(ctx, api+"DIRECT.GET."+stream+"."+subject, nil, "")
	if err != nil {
		return Outcome{}, err
	}
	switch {
	case came != nil || strings.Contains(a.body, marker):
		return succeeded("an event of the other tenant came")
	case !strings.HasPrefix(a.header, "NATS/1.0 404"):
		return Outcome{}, fmt.Errorf("the store answered by %q, and not that there is no such event", short(a.header+a.body))
	}
	return refused("", "the subject holds nothing in this tenant")
}

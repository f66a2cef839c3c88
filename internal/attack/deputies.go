package attack

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/signetbus/signet/internal/wire"
)

// deputy is where the server is made to write.
const (
	deputy  = "attack.victim.deputy"
	outside = "attackeph.deputy" // of no stream: the server takes no other for a push consumer
)

// deputies are attacks that make the server write where the attacker may not.
var deputies = []Attack{
	{
		Number: 47, Name: "deputy: acknowledgement", Control: "replies are the connection's own inboxes", Row: "5/16",
		Does: "names a subject of the victim's as the reply subject of a publish", run: deputed("attack.attacker.deputy", "x"),
	},
	{
		Number: 48, Name: "deputy: direct get", Control: "replies are the connection's own inboxes", Row: "5/16",
		Does: "names a subject of the victim's as the reply subject of a read", run: deputed("$JS.API.DIRECT.GET."+stream+".attack.shared.ready", ""),
	},
	{
		Number: 49, Name: "deputy: pull", Control: "replies are the connection's own inboxes", Row: "5/16",
		Does: "names a subject of the victim's as the reply subject of a pull from a consumer of its own", run: deputedPull,
	},
	{
		Number: 50, Name: "deputy: push consumer", Control: "deliver subjects are the connection's own inboxes", Row: "5/16",
		Does: "makes a consumer of its own events that delivers to a subject of the victim's", run: deputedPush,
	},
}

// deputed publishes with a reply subject of the victim's.
func deputed(subject, body string) runner {
	return func(ctx context.Context, r *Rig) (Outcome, error) {
		c, err := r.as(ctx, attacker)
		if err != nil {
			return Outcome{}, err
		}
		defer c.Close()
		return viaDeputy(ctx, r, c, pub(subject, deputy, nil, body))
	}
}

func viaDeputy(ctx context.Context, r *Rig, c *conn, text string) (Outcome, error) {
	watch, sid, err := r.watch(ctx)
	if err != nil {
		return Outcome{}, err
	}
	defer watch.Close()
	if err := c.send(text); err != nil {
		return Outcome{}, err
	}
	errs, err := c.sync(ctx)
	if err != nil {
		return Outcome{}, err
	}
	if len(errs) == 0 { // it was taken: what comes of it may take a moment
		f, ok, err := watch.next(ctx, hearing, sid, func(f *frame) bool { return !strings.HasSuffix(f.subject, ".ready") })
		if err != nil || !ok {
			return Outcome{}, fmt.Errorf("it was not refused, and nothing came: %w", err)
		}
		return judgeTold(nil, 1, &f, nil)
	}
	came, err := watch.reached(ctx, sid)
	if err != nil {
		return Outcome{}, err
	}
	return judgeTold(errs, 1, came, codes(wire.CodeReplyDenied))
}

func deputedPull(ctx context.Context, r *Rig) (Outcome, error) {
	c, err := r.as(ctx, attacker)
	if err != nil {
		return Outcome{}, err
	}
	defer c.Close()
	if _, err := granted(ctx, c, "attack.attacker.pulled", nil, "x"); err != nil {
		return Outcome{}, err
	}
	name, drop, err := c.consumer(ctx, map[string]any{"filter_subject": "attack.attacker.pulled", "ack_policy": "explicit"})
	if err != nil {
		return Outcome{}, err
	}
	defer drop()
	return viaDeputy(ctx, r, c, pub("$JS.API.CONSUMER.MSG.NEXT."+stream+"."+name, deputy, nil, `{"batch":1,"no_wait":true}`))
}

func deputedPush(ctx context.Context, r *Rig) (Outcome, error) {
	c, err := r.as(ctx, attacker)
	if err != nil {
		return Outcome{}, err
	}
	defer c.Close()
	if _, err := granted(ctx, c, "attack.attacker.pushed", nil, "x"); err != nil {
		return Outcome{}, err
	}
	watch, sid, err := r.watchOn(ctx, outside)
	if err != nil {
		return Outcome{}, err
	}
	defer watch.Close()
	name := "push" + token()
	a, err := c.request(ctx, "$JS.API.CONSUMER.CREATE."+stream+"."+name+".attack.attacker.pushed", nil, consumerBody(name, map[string]any{
		"filter_subject": "attack.attacker.pushed", "deliver_subject": outside, "ack_policy": "none",
	}))
	if err != nil {
		return Outcome{}, err
	}
	if a.code != 0 {
		return judge(a.code, a.reason, codes(wire.CodeReplyDenied))
	}
	defer c.drop(ctx, name)
	f, ok, err := watch.next(ctx, hearing, sid, func(f *frame) bool { return f.body == "x" })
	if err != nil || !ok {
		return Outcome{}, fmt.Errorf("the consumer was answered by %d %s, and nothing came: %w", a.api, short(a.reason), err)
	}
	return succeeded("a consumer delivers to the victim's name space, the event of %s", f.subject)
}

// consumerBody is the body of CONSUMER.CREATE. What is made goes by itself a minute after
// its last use, should nobody delete it.
func consumerBody(name string, config map[string]any) string {
	config["name"], config["inactive_threshold"] = name, int64(60e9)
	b, _ := json.Marshal(map[string]any{"stream_name": stream, "config": config}) // strings and numbers
	return string(b)
}

// consumer makes one that is granted, with a name of its own; drop deletes it.
func (c *conn) consumer(ctx context.Context, config map[string]any) (name string, drop func(), err error) {
	name = "c" + token()
	filter, _ := config["filter_subject"].(string)
	a, err := c.request(ctx, "$JS.API.CONSUMER.CREATE."+stream+"."+name+"."+filter, nil, consumerBody(name, config))
	if err != nil {
		return "", nil, err
	}
	if a.code+a.api != 0 {
		return "", nil, fmt.Errorf("a granted consumer was answered by %d %s", max(a.code, a.api), short(a.reason))
	}
	return name, func() { c.drop(ctx, name) }, nil
}

// drop deletes a consumer; one that is left goes by itself.
func (c *conn) drop(ctx context.Context, name string) {
	_, _ = c.request(ctx, "$JS.API.CONSUMER.DELETE."+stream+"."+name, nil, "")
}

package attack

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/signetbus/signet/internal/wire"
)

// ownedCodes are the refusals of what is another's consumer.
var ownedCodes = codes(wire.CodeConsumerNotOwned)

// consuming are attacks on the consumers of others.
var consuming = []Attack{
	{Number: 64, Name: "forged ack", Control: "acks by the owner of the consumer", Row: "5/09", Does: "acknowledges an event that was delivered to the victim, who would never see it again", run: forgedSettle("+ACK")},
	{Number: 65, Name: "forged term", Control: "acks by the owner of the consumer", Row: "5/09", Does: "terminates an event that was delivered to the victim", run: forgedSettle("+TERM")},
	{Number: 66, Name: "pull from another's consumer", Control: "consumers have owners", Row: "5/18", Does: "pulls what the victim's consumer has for it", run: onConsumer(ownedCodes, "CONSUMER.MSG.NEXT", `{"batch":1,"no_wait":true}`)},
	{Number: 67, Name: "delete another's consumer", Control: "consumers have owners", Row: "5/18", Does: "deletes a throw-away consumer of the victim's", run: onConsumer(ownedCodes, "CONSUMER.DELETE", "")},
	{
		Number: 68, Name: "stop another's consumer", Control: "consumers have owners", Row: "5/18",
		Does: "pauses a throw-away consumer of the victim's", run: onConsumer(codes(wire.CodeAdminDenied, wire.CodeConsumerNotOwned), "CONSUMER.PAUSE", `{"pause_until":"2100-01-01T00:00:00Z"}`),
	},
	{Number: 69, Name: "take another's consumer", Control: "the owner stands in the metadata", Row: "5/18", Does: "creates a throw-away consumer of the victim's anew, with a filter of its own", run: takeConsumer},
}

// victims makes a consumer of the victim's, on a subject of its own with one event.
func (r *Rig) victims(ctx context.Context) (v *conn, name string, end func(), err error) {
	subject, _, _, err := r.secret(ctx)
	if err != nil {
		return nil, "", nil, err
	}
	if v, err = r.as(ctx, victim); err != nil {
		return nil, "", nil, err
	}
	name, drop, err := v.consumer(ctx, map[string]any{"filter_subject": subject, "ack_policy": "explicit", "ack_wait": int64(60e9)})
	if err != nil {
		_ = v.Close()
		return nil, "", nil, err
	}
	return v, name, func() { drop(); _ = v.Close() }, nil
}

// pending is how many events of a consumer wait for an ack.
func (c *conn) pending(ctx context.Context, name string) (int, error) {
	a, err := c.request(ctx, api+"CONSUMER.INFO."+stream+"."+name, nil, "")
	if err != nil {
		return 0, err
	}
	var info struct {
		Pending *int `json:"num_ack_pending"`
	}
	if err := json.Unmarshal([]byte(a.body), &info); err != nil || info.Pending == nil {
		return 0, fmt.Errorf("the victim's consumer was answered by %q", short(a.body))
	}
	return *info.Pending, nil
}

func forgedSettle(word string) runner {
	return func(ctx context.Context, r *Rig) (Outcome, error) {
		v, name, end, err := r.victims(ctx)
		if err != nil {
			return Outcome{}, err
		}
		defer end()
		m, err := v.request(ctx, api+"CONSUMER.MSG.NEXT."+stream+"."+name, nil, `{"batch":1,"expires":5000000000}`)
		if err != nil {
			return Outcome{}, err
		}
		if !strings.HasPrefix(m.reply, "$JS.ACK.") {
			return Outcome{}, fmt.Errorf("the victim got no event: %q", short(m.header+m.body))
		}
		c, err := r.as(ctx, attacker)
		if err != nil {
			return Outcome{}, err
		}
		defer c.Close()
		a, err := c.request(ctx, m.reply, nil, word)
		if err != nil {
			return Outcome{}, err
		}
		left, err := v.pending(ctx, name)
		switch {
		case err != nil:
			return Outcome{}, err
		case left == 0:
			return succeeded("the victim's event was settled")
		case a.code == 0:
			return Outcome{}, fmt.Errorf("answered by %q, and the victim's event still waits", short(a.text+a.header+a.body))
		}
		return judge(a.code, a.reason, ownedCodes)
	}
}

func onConsumer(want []wire.Code, verb, body string) runner {
	return func(ctx context.Context, r *Rig) (Outcome, error) {
		_, name, end, err := r.victims(ctx)
		if err != nil {
			return Outcome{}, err
		}
		defer end()
		return asking(attacker, want, answered, ask{subject: api + verb + "." + stream + "." + name, body: body})(ctx, r)
	}
}

func takeConsumer(ctx context.Context, r *Rig) (Outcome, error) {
	_, name, end, err := r.victims(ctx)
	if err != nil {
		return Outcome{}, err
	}
	defer end()
	return asking(attacker, ownedCodes, answered, ask{
		subject: api + "CONSUMER.CREATE." + stream + "." + name + ".attack.attacker.>",
		body:    consumerBody(name, map[string]any{"filter_subject": "attack.attacker.>", "ack_policy": "explicit", "ack_wait": int64(60e9)}),
	})(ctx, r)
}

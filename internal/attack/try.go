package attack

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/signetbus/signet/internal/wire"
)

// runner is the part of an attack that does it.
type runner = func(ctx context.Context, r *Rig) (Outcome, error)

// hearing is how long an attacker listens that was not turned away: long enough for a
// message between nodes that are busy.
const hearing = 3 * time.Second

// ask is one request of an attack. raw takes the place of the rest where the frame itself
// is the attack.
type ask struct {
	subject string
	header  []string
	body    string
	raw     func(reply string) string
}

func (k *ask) frame(reply string) string {
	if k.raw != nil {
		return k.raw(reply)
	}
	return pub(k.subject, reply, k.header, k.body)
}

// gain says what an answer gave to the attacker; empty: nothing.
type gain func(*answer) string

// stored: an event was stored that must not be.
func stored(a *answer) string {
	if !a.acked() {
		return ""
	}
	return fmt.Sprintf("stored in %s as %d", a.stream, a.sequence)
}

// answered: somebody did what was asked.
func answered(a *answer) string {
	if a.code != 0 || a.api != 0 || a.noticed || a.verb == "-ERR" {
		return ""
	}
	return "it was done, or answered"
}

// reached: the request got as far as the server behind the gate, which said that what it names is
// not there.
func reached(a *answer) string {
	if a.code != 0 || a.api == 0 {
		return answered(a)
	}
	return fmt.Sprintf("the server itself looked for it (%d)", a.api)
}

// asking makes an attack of requests, each of which must be refused with one of the codes.
func asking(by string, want []wire.Code, got gain, list ...ask) runner {
	return func(ctx context.Context, r *Rig) (Outcome, error) {
		c, err := r.as(ctx, by)
		if err != nil {
			return Outcome{}, err
		}
		defer c.Close()
		return askAll(ctx, c, want, got, list...)
	}
}

func askAll(ctx context.Context, c *conn, want []wire.Code, got gain, list ...ask) (Outcome, error) {
	var out Outcome
	for i := range list {
		a, err := c.ask(ctx, list[i].frame)
		if err != nil {
			return Outcome{}, err
		}
		if out, err = judgeAnswer(a, want, got); err != nil || out.Verdict == Succeeded {
			return out, err
		}
	}
	return out, nil
}

// judgeAnswer is the detector of attacks that are requests.
func judgeAnswer(a *answer, want []wire.Code, got gain) (Outcome, error) {
	if a.code != 0 {
		return judge(a.code, a.reason, want)
	}
	if what := got(a); what != "" {
		return succeeded("%s", what)
	}
	return Outcome{}, fmt.Errorf("answered by %q (%d): neither a refusal nor what it is after", short(a.reason+a.text+a.header), a.api)
}

// judgeTold is the detector of attacks that are answered by -ERR: each of n must be refused
// with one of the codes, and nothing may have come through.
func judgeTold(errs []string, n int, came *frame, want []wire.Code) (Outcome, error) {
	if came != nil {
		return succeeded("%s was reached", came.subject)
	}
	var out Outcome
	for _, e := range errs {
		code, reason := refusalIn(e)
		if code == 0 {
			return Outcome{}, fmt.Errorf("the broker said %q, which names no code", short(e))
		}
		var err error
		if out, err = judge(code, reason, want); err != nil {
			return out, err
		}
	}
	if len(errs) < n {
		return Outcome{}, fmt.Errorf("%d of %d attempts were refused, and of the others nothing was seen", len(errs), n)
	}
	return out, nil
}

// listening makes an attack of subscriptions. provoke has somebody send what must not be
// heard, with the marker in it.
func listening(want []wire.Code, filters []string, provoke func(ctx context.Context, r *Rig, marker string) error) runner {
	return func(ctx context.Context, r *Rig) (Outcome, error) {
		c, err := r.as(ctx, attacker)
		if err != nil {
			return Outcome{}, err
		}
		defer c.Close()
		for _, f := range filters {
			if _, err := c.subscribe(f); err != nil {
				return Outcome{}, err
			}
		}
		errs, err := c.sync(ctx)
		if err != nil {
			return Outcome{}, fmt.Errorf("%w: %w", errorTold(errs), err)
		}
		marker := token()
		if err := provoke(ctx, r, marker); err != nil {
			return Outcome{}, fmt.Errorf("what was to be overheard was not sent: %w", err)
		}
		came, err := c.overhears(ctx, marker, len(errs) >= len(filters))
		if err != nil {
			return Outcome{}, err
		}
		return judgeTold(errs, len(filters), came, want)
	}
}

// overhears looks whether a message with the marker has come, or, unless all was refused,
// still comes.
func (c *conn) overhears(ctx context.Context, marker string, all bool) (*frame, error) {
	if _, err := c.sync(ctx); err != nil {
		return nil, err
	}
	has := func(f *frame) bool { return strings.Contains(f.body+f.header+f.subject, marker) }
	for i := range c.heard {
		if has(&c.heard[i]) {
			return &c.heard[i], nil
		}
	}
	if all {
		return nil, nil //nolint:nilnil // nothing came, which is no error
	}
	for end := time.Now().Add(hearing); time.Now().Before(end); {
		c.until(ctx, time.Until(end))
		f, err := c.take()
		if err != nil {
			break // the deadline, or the end of the connection: nothing more comes
		}
		if f.verb == "MSG" && has(&f) {
			return &f, nil
		}
	}
	return nil, ctx.Err()
}

// by publishes as somebody who may, and returns the acknowledgement.
func (r *Rig) by(ctx context.Context, who, subject string, header []string, body string) (*answer, error) {
	c, err := r.as(ctx, who)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return granted(ctx, c, subject, header, body)
}

// granted publishes what is granted.
func granted(ctx context.Context, c *conn, subject string, header []string, body string) (*answer, error) {
	a, err := c.request(ctx, subject, header, body)
	if err == nil && !a.acked() {
		err = fmt.Errorf("a granted publish on %s was answered by %d %s", subject, max(a.code, a.api), short(a.said+a.header))
	}
	return a, err
}

// provoking has somebody publish the marker.
func provoking(who, subject string) func(context.Context, *Rig, string) error {
	return func(ctx context.Context, r *Rig, marker string) error {
		_, err := r.by(ctx, who, subject, nil, marker)
		return err
	}
}

// codes is short for a list.
func codes(c ...wire.Code) []wire.Code { return c }

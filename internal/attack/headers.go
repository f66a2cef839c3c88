package attack

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/signetbus/signet/internal/wire"
)

// headerCodes are refusals of a header as such.
var headerCodes = codes(wire.CodeHeaderDenied)

// controlled is a publish in the attacker's own name space with headers.
func controlled(subject string, header ...string) ask {
	return ask{subject: "attack.attacker." + subject, header: header, body: "x"}
}

// headers are attacks by the headers of a publish that steer the server.
var headers = []Attack{
	{
		Number: 24, Name: "header smuggling", Control: "strict header parser", Row: "3/03",
		Does: "hides Nats-Rollup: sub of its own subject behind a bare line feed, a NUL and a name without end, which parsers read in different ways",
		run: asking(attacker, codes(wire.CodeHeaderMalformed), stored,
			smuggled("NATS/1.0\r\nx: y\nNats-Rollup: sub\r\n\r\n"), smuggled("NATS/1.0\r\nx: a\x00b\r\n\r\n"), smuggled("NATS/1.0\r\nx: a\x1b[2Jb\r\n\r\n")),
	},
	{
		Number: 25, Name: "header bomb", Control: "32 headers, 4,096 bytes", Row: "3/02",
		Does: "publishes with 200 headers, and with one of 8 KiB",
		run: asking(attacker, codes(wire.CodeHeadersTooLarge), stored,
			controlled("bomb", manyHeaders(200)...), controlled("bomb", "x: "+strings.Repeat("y", 8<<10))),
	},
	{
		Number: 26, Name: "rollup wipe of a stream", Control: "Nats-Rollup is a right", Row: "3/10",
		Does: "publishes with Nats-Rollup: sub, which would wipe what the throw-away subject holds",
		run:  asking(attacker, headerCodes, stored, controlled("roll", "Nats-Rollup: sub"), controlled("roll", "nats-rollup: sub")),
	},
	{
		Number: 27, Name: "rollup wipe of a bucket", Control: "of a bucket only the own key", Row: "3/10",
		Does: "writes its key of the throw-away bucket with Nats-Rollup: all, which would wipe those of others",
		run: asking(attacker, headerCodes, stored,
			ask{subject: "$KV." + openBucket + ".own", header: []string{"Nats-Rollup: all"}, body: "x"}),
	},
	{Number: 28, Name: "dedup poisoning", Control: "dedup key of principal, source and id", Row: "3/11", Does: "publishes with the id that the victim's event will have, so that that one is lost as a duplicate", run: poison},
	{Number: 29, Name: "schedule jump", Control: "Nats-Schedule is a right, and its target a publish", Row: "3/12", Does: "has the server publish later in the victim's name space", run: scheduleJump},
	{
		Number: 30, Name: "event that vanishes", Control: "Nats-TTL is a right", Row: "3/13",
		Does: "publishes an event of its own that goes after a second", run: asking(attacker, headerCodes, stored, controlled("ttl", "Nats-TTL: 1s")),
	},
	{
		Number: 31, Name: "oracle by expectations", Control: "Nats-Expected- headers are rights", Row: "3/14",
		Does: "expects a sequence that is not there, so that the error tells how much others have published",
		run: asking(attacker, headerCodes, reached,
			controlled("expect", "Nats-Expected-Last-Sequence: 999999999"), controlled("expect", "Nats-Expected-Last-Subject-Sequence: 999999999")),
	},
	{Number: 32, Name: "trace as a deputy", Control: "Nats-Trace- headers are refused", Row: "3/15", Does: "has the server write the trace of a publish in the victim's name space", run: traceJump},
	{Number: 33, Name: "forged caller of a call", Control: "the prefix Signet- is the broker's", Row: "3", Does: "calls the victim's service with headers that say that the victim calls", run: forgedCaller},
}

func smuggled(block string) ask {
	return ask{raw: func(reply string) string { return hpub("attack.attacker.smuggled", reply+" ", block, "x") }}
}

func manyHeaders(n int) []string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf("x-%d: y", i))
	}
	return out
}

func poison(ctx context.Context, r *Rig) (Outcome, error) {
	id := "Nats-Msg-Id: " + token()
	if _, err := r.by(ctx, attacker, "attack.attacker.poison", []string{id}, "poison"); err != nil {
		return Outcome{}, err
	}
	a, err := r.by(ctx, victim, "attack.victim.poison", []string{id}, "the victim's")
	if err != nil {
		return Outcome{}, err
	}
	if a.double {
		return succeeded("the victim's event was taken for a duplicate and is lost")
	}
	// That there is a dedup at all: the victim's own second try is one.
	if a, err = r.by(ctx, victim, "attack.victim.poison", []string{id}, "the victim's"); err != nil {
		return Outcome{}, err
	}
	if !a.double {
		return Outcome{}, fmt.Errorf("the victim's own repeat was stored, too: nothing is taken for a duplicate here")
	}
	return refused("", "the victim's event was stored beside it")
}

func scheduleJump(ctx context.Context, r *Rig) (Outcome, error) {
	v, err := r.as(ctx, victim)
	if err != nil {
		return Outcome{}, err
	}
	defer v.Close()
	at := time.Now().Add(time.Second).UTC().Format(time.RFC3339)
	c, err := r.as(ctx, attacker)
	if err != nil {
		return Outcome{}, err
	}
	defer c.Close()
	out, err := askAll(ctx, c, headerCodes, stored,
		controlled("jump", "Nats-Schedule: @at "+at, "Nats-Schedule-Target: attack.victim.jumped"))
	if err != nil || out.Verdict != Succeeded {
		return out, err
	}
	// What is scheduled goes into the stream, and to no subscriber.
	poll := time.NewTicker(100 * time.Millisecond)
	defer poll.Stop()
	for {
		a, err := v.request(ctx, api+"DIRECT.GET."+stream+".attack.victim.jumped", nil, "")
		switch {
		case err != nil:
			return Outcome{}, fmt.Errorf("the schedule was taken, and nothing was published: %w", err)
		case a.body == "x":
			return succeeded("the server published on attack.victim.jumped")
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return Outcome{}, fmt.Errorf("the schedule was taken, and nothing was published: %w", ctx.Err())
		}
	}
}

func traceJump(ctx context.Context, r *Rig) (Outcome, error) {
	watch, sid, err := r.watch(ctx)
	if err != nil {
		return Outcome{}, err
	}
	defer watch.Close()
	c, err := r.as(ctx, attacker)
	if err != nil {
		return Outcome{}, err
	}
	defer c.Close()
	// Only what traces answers both: without an event there is no trace.
	out, err := askAll(ctx, c, headerCodes, stored, controlled("trace", "Nats-Trace-Dest: attack.victim.traced"))
	if err != nil || out.Verdict != Succeeded {
		return out, err
	}
	f, ok, err := watch.next(ctx, hearing, sid, func(f *frame) bool { return f.subject == "attack.victim.traced" })
	if err != nil || !ok {
		return Outcome{}, fmt.Errorf("the header was taken, and no trace came: %w", err)
	}
	return succeeded("the server wrote to %s", f.subject)
}

// forgedCaller serves as the victim, and looks who the call says that it is from.
func forgedCaller(ctx context.Context, r *Rig) (Outcome, error) {
	s, sid, err := r.serve(ctx)
	if err != nil {
		return Outcome{}, err
	}
	defer s.Close()
	c, err := r.as(ctx, attacker)
	if err != nil {
		return Outcome{}, err
	}
	defer c.Close()
	var said []string
	for _, h := range []string{"Signet-Principal: attack/victim", "signet-principal: attack/victim", "Nats-Request-Info: {\"acc\":\"attack\",\"user\":\"victim\"}"} {
		if err := c.send(pub(call, "", []string{h}, "forged")); err != nil {
			return Outcome{}, err
		}
		errs, err := c.sync(ctx)
		if err != nil {
			return Outcome{}, err
		}
		said = append(said, errs...)
	}
	// A call without such a header comes, and says who calls.
	if err := c.send(pub(call, "", nil, "plain")); err != nil {
		return Outcome{}, err
	}
	f, ok, err := s.next(ctx, 10*time.Second, sid, nil)
	switch {
	case err != nil:
		return Outcome{}, err
	case !ok:
		return Outcome{}, fmt.Errorf("no call came to the service")
	case f.body == "forged":
		return judgeTold(nil, 0, &f, nil)
	}
	return judgeTold(said, 3, nil, codes(wire.CodeHeaderDenied, wire.CodeHeaderMalformed, wire.CodeAttestationForbidden))
}

// call is the endpoint of the victim's throw-away service.
const call = "rpc.attackrpc.echo"

// serve listens, as the victim, for calls.
func (r *Rig) serve(ctx context.Context) (*conn, string, error) {
	s, err := r.as(ctx, victim)
	if err != nil {
		return nil, "", err
	}
	sid, err := s.subscribe(call)
	if err == nil {
		var errs []string
		if errs, err = s.sync(ctx); err == nil {
			err = errorTold(errs)
		}
	}
	if err != nil {
		_ = s.Close()
	}
	return s, sid, err
}

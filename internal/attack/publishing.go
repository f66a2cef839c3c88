package attack

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/signetbus/signet/internal/wire"
)

// publishing are attacks by the subject, the size and the rate of publishes, and by the protocol.
var publishing = []Attack{
	{
		Number: 14, Name: "publish without a grant", Control: "publish grants", Row: "3",
		Does: "publishes in the victim's name space, and on a subject whose grant has lapsed",
		run: asking(attacker, codes(wire.CodePublishDenied), stored,
			ask{subject: "attack.victim.forged", body: "x"}, ask{subject: "attack.lapsed.x", body: "x"}),
	},
	{
		Number: 15, Name: "wildcards in a publish", Control: "literal subjects", Row: "2/04",
		Does: "publishes on attack.attacker.* and attack.attacker.>",
		run: asking(attacker, codes(wire.CodeSubjectMalformed), stored,
			ask{subject: "attack.attacker.*", body: "x"}, ask{subject: "attack.attacker.>", body: "x"}),
	},
	{
		Number: 16, Name: "control characters in a subject", Control: "grammar of subjects", Row: "2/05",
		Does: "publishes on subjects with an escape sequence, a byte that is no UTF-8 and a letter that looks like another",
		run: asking(attacker, codes(wire.CodeSubjectMalformed), stored,
			ask{subject: "attack.attacker.\x1b[2J", body: "x"}, ask{subject: "attack.attacker.\xff", body: "x"}, ask{subject: "attack.аttacker.x", body: "x"}),
	},
	{
		Number: 17, Name: "requests to the system account", Control: "classes with an allow list", Row: "2/07",
		Does: "asks the server for the connections of the account, addresses and all: it only reads",
		run:  asking(attacker, codes(wire.CodeSubjectUnknown, wire.CodePublishDenied, wire.CodeAPIDenied), answered, ask{subject: "$SYS.REQ.ACCOUNT.PING.CONNZ"}),
	},
	{
		Number: 18, Name: "oversize", Control: "size by subject", Row: "2/01",
		Does: "publishes 1 KiB on a subject that takes 64 bytes",
		run:  asking(attacker, codes(wire.CodePayloadTooLarge), stored, ask{subject: "attack.attacker.small", body: strings.Repeat("x", 1024)}),
	},
	{
		Number: 19, Name: "lengths that lie", Control: "protocol parser", Row: "2",
		Does:  "hides a publish in the victim's name space behind lengths that are negative, of 20 digits, or smaller than their header",
		Plain: "nats-server refuses such lengths too; that the judge sees a hidden publish is tested with a made-up observation",
		run:   lyingLengths,
	},
	{
		Number: 20, Name: "rate over several connections", Control: "one bucket per principal", Row: "2/37",
		Does: "publishes 12 times at once over 4 connections, as a principal that has 2 a second", run: rateDodge,
	},
	{
		Number: 21, Name: "subscription flood", Control: "limit of subscriptions", Row: "2/36",
		Does: "subscribes 10,001 times on one connection, which it then closes", run: subscriptionFlood,
	},
	{
		Number: 22, Name: "connection flood", Control: "quota of connections", Row: "2/36",
		Does: "opens 8 connections in a tenant whose quota is 4", run: connectionFlood,
	},
	{
		Number: 23, Name: "flood of API requests", Control: "rate of the JetStream API", Row: "2",
		Does: "asks 1,000 times at once for a stream, where 200 a second and a burst of 400 are allowed", run: requestFlood,
	},
}

// lies are heads of publishes whose length is not what follows.
var lies = []string{
	"PUB attack.attacker.lie -1\r\n", "PUB attack.attacker.lie 99999999999999999999\r\n", "HPUB attack.attacker.lie 12 4\r\n", "PUB attack.attacker.lie 0x3\r\n",
}

func lyingLengths(ctx context.Context, r *Rig) (Outcome, error) {
	watch, sid, err := r.watch(ctx)
	if err != nil {
		return Outcome{}, err
	}
	defer watch.Close()
	const hidden = "PUB attack.victim.hidden 1\r\nx\r\n"
	var said []string
	for _, head := range lies {
		c, err := r.as(ctx, attacker)
		if err != nil {
			return Outcome{}, err
		}
		err = c.send(head + hidden)
		errs, serr := c.sync(ctx)
		_ = c.Close()
		if err == nil && serr != nil && len(errs) > 0 {
			said = append(said, errs[len(errs)-1])
		}
	}
	came, err := watch.reached(ctx, sid)
	if err != nil {
		return Outcome{}, err
	}
	return judgeHidden(said, came)
}

// judgeHidden is the detector of hidden commands: each connection must have ended with a
// word, and nothing may have come through.
func judgeHidden(said []string, came *frame) (Outcome, error) {
	switch {
	case came != nil:
		return succeeded("%s was reached", came.subject)
	case len(said) < len(lies):
		return Outcome{}, fmt.Errorf("%d of %d connections were ended with a word", len(said), len(lies))
	}
	return refused(short(said[len(said)-1]), "the connections were ended")
}

// watch listens, as the victim, to all of the victim's name space.
func (r *Rig) watch(ctx context.Context) (c *conn, sid string, err error) {
	return r.watchOn(ctx, "attack.victim.>")
}

func (r *Rig) watchOn(ctx context.Context, filter string) (c *conn, sid string, err error) {
	if c, err = r.as(ctx, victim); err != nil {
		return nil, "", err
	}
	if sid, err = c.subscribe(filter); err == nil {
		var errs []string
		if errs, err = c.sync(ctx); err == nil {
			err = errorTold(errs)
		}
	}
	if err != nil {
		_ = c.Close()
	}
	return c, sid, err
}

// reached returns what came to the victim's name space since watch. It publishes there
// itself and waits for that, so that what came before has come.
func (c *conn) reached(ctx context.Context, sid string) (*frame, error) {
	marker := "attack.victim." + token()
	if _, err := granted(ctx, c, marker, nil, "marker"); err != nil {
		return nil, err
	}
	for {
		f, ok, err := c.next(ctx, hearing, sid, nil)
		switch {
		case err != nil:
			return nil, err
		case !ok:
			return nil, fmt.Errorf("the watcher does not hear what it publishes itself")
		case f.subject == marker:
			return nil, nil //nolint:nilnil // nothing came, which is no error
		case !strings.HasSuffix(f.subject, ".ready"):
			return &f, nil
		}
	}
}

func rateDodge(ctx context.Context, r *Rig) (Outcome, error) {
	const connections, each, perSecond = 4, 3, 2
	nodes := map[string]bool{}
	var all []*conn
	defer func() { closeAll(all...) }()
	for range connections {
		c, err := r.as(ctx, slow)
		if err != nil {
			return Outcome{}, err
		}
		all = append(all, c)
		nodes[c.info.ServerName] = true
	}
	begun := time.Now()
	passed, limited := 0, 0
	for range each {
		for _, c := range all {
			a, err := c.request(ctx, "attack.slow.x", nil, "x")
			switch {
			case err != nil:
				return Outcome{}, err
			case a.code == int(wire.CodeRateLimited):
				limited++
			case a.acked():
				passed++
			default:
				_, err := judgeAnswer(a, codes(wire.CodeRateLimited), stored)
				return Outcome{}, err
			}
		}
	}
	// A limit is each node's: through a load balancer there are several.
	most := len(nodes) * (perSecond + int(time.Since(begun).Seconds()*perSecond) + 1)
	return judgeRate(passed, limited, most)
}

func judgeRate(passed, limited, most int) (Outcome, error) {
	switch {
	case passed > most:
		return succeeded("%d of %d passed, the limit allows %d", passed, passed+limited, most)
	case limited == 0:
		return Outcome{}, fmt.Errorf("the broker was too slow to come to the limit: %d passed, %d may", passed, most)
	}
	return refused(fmt.Sprint(int(wire.CodeRateLimited)), "%d of %d passed, the limit allows %d", passed, passed+limited, most)
}

func subscriptionFlood(ctx context.Context, r *Rig) (Outcome, error) {
	const n = 10001
	c, err := r.as(ctx, attacker)
	if err != nil {
		return Outcome{}, err
	}
	defer c.Close()
	c.until(ctx, 0)
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, "SUB attack.attacker.flood.%d %d\r\n", i, i)
		if text.Len() > 16<<10 || i == n-1 {
			if err := c.send(text.String()); err != nil {
				break // sync reads the last word
			}
			text.Reset()
		}
	}
	errs, err := c.sync(ctx)
	switch {
	case len(errs) > 0 && strings.Contains(errs[0], "maximum subscriptions exceeded"):
		return refused(short(errs[0]), "%d subscriptions on one connection", n)
	case len(errs) > 0 || err != nil:
		return Outcome{}, fmt.Errorf("%w: %w", errorTold(errs), err)
	}
	return succeeded("%d subscriptions on one connection", n)
}

func connectionFlood(ctx context.Context, r *Rig) (Outcome, error) {
	const n, quota = 8, 4
	nodes := map[string]int{}
	var all []*conn
	defer func() { closeAll(all...) }()
	for range n {
		c, err := r.open(ctx, opening{who: stranger})
		if said, ok := isRefusal(err); ok && strings.Contains(said, "maximum connections exceeded") {
			return refused(short(said), "with %d of the tenant open", len(all))
		}
		if err != nil {
			return Outcome{}, err
		}
		all = append(all, c)
		if nodes[c.info.ServerName]++; nodes[c.info.ServerName] > quota {
			return succeeded("%d connections at one node, the quota is %d", nodes[c.info.ServerName], quota)
		}
	}
	return Outcome{}, fmt.Errorf("%d connections went to %d nodes: not enough to come to the quota of one", n, len(nodes))
}

func requestFlood(ctx context.Context, r *Rig) (Outcome, error) {
	const n = 1000
	c, err := r.as(ctx, flooder)
	if err != nil {
		return Outcome{}, err
	}
	defer c.Close()
	c.until(ctx, 0)
	if err := c.send("SUB " + c.inbox + ".* r\r\n"); err != nil {
		return Outcome{}, err
	}
	begun := time.Now()
	for i := range n {
		if err := c.send(pub("$JS.API.STREAM.INFO."+stream, fmt.Sprintf("%s.%d", c.inbox, i), nil, "")); err != nil {
			return Outcome{}, err
		}
	}
	done, limited := 0, 0
	for done+limited < n {
		f, ok, err := c.next(ctx, 0, "r", nil)
		if err != nil || !ok {
			return Outcome{}, fmt.Errorf("%d of %d answers came: %w", done+limited, n, err)
		}
		switch a := parseAnswer(f); {
		case a.code == int(wire.CodeRateLimited):
			limited++
		case a.code != 0:
			return judge(a.code, a.reason, codes(wire.CodeRateLimited))
		default:
			done++
		}
	}
	return judgeRate(done, limited, 400+int(time.Since(begun).Seconds()*200)+1)
}

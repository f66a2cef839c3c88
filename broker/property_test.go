package broker_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
)

// readers are the principals of the property test, by tenant.
var readers = []struct{ tenant, name string }{{"red", "r1"}, {"red", "r2"}, {"blue", "b1"}}

// propertyTime is how long the property test goes on, if that is five rounds.
const propertyTime = 8 * time.Second

// grants of one reader in one round.
type readGrants struct{ subscribe, buckets []string }

// mayRead is the naive model: it knows patterns and nothing else.
func (g *readGrants) mayRead(subject string) bool {
	if key, ok := strings.CutPrefix(subject, "$KV."); ok {
		bucket, _, _ := strings.Cut(key, ".")
		for _, b := range g.buckets {
			if b == bucket {
				return true
			}
		}
		return false
	}
	for _, p := range g.subscribe {
		if modelMatch(strings.Split(p, "."), strings.Split(subject, ".")) {
			return true
		}
	}
	return false
}

func modelMatch(pattern, subject []string) bool {
	switch {
	case len(pattern) == 0 || len(subject) == 0:
		return len(pattern) == len(subject)
	case pattern[0] == ">":
		return len(pattern) == 1
	}
	return (pattern[0] == "*" || pattern[0] == subject[0]) && modelMatch(pattern[1:], subject[1:])
}

var (
	storedSubjects = []string{"a.x", "a.y", "a.x.k", "b.x", "b.y"}
	liveSubjects   = []string{"e.x", "e.y", "e.x.k"}
	keySubjects    = []string{"$KV.one.k", "$KV.two.k"}
	filterPool     = []string{"a.>", "a.x", "a.y", "a.*", "a.x.*", "a.x.>", "b.>", "b.x", "b.*", "*.x", ">", "*.>", "e.>", "e.x", "e.*", "$KV.one.>", "$KV.two.k", "$KV.*.k", "$KV.>", "_INBOX.>"}
	grantPool      = []string{"a.>", "a.x", "a.y", "a.*", "a.x.*", "b.>", "b.x", "b.*", "e.>", "e.x", "e.*"}
	streamPool     = []string{"A", "B", "KV_one", "KV_two", "DLQ"}
)

func some(r *rand.Rand, pool []string, most int) (out []string) {
	for range r.IntN(most + 1) {
		out = append(out, pool[r.IntN(len(pool))])
	}
	return out
}

func one(r *rand.Rand, pool []string) string { return pool[r.IntN(len(pool))] }

func propertyPolicy(grants []readGrants) string {
	var s strings.Builder
	for i, tenant := range []string{"red", "blue"} {
		if i > 0 {
			s.WriteString("---\n")
		}
		fmt.Fprintf(&s, `tenant: %[1]s
streams: [{name: A, subjects: [a.>], maxBytes: 16MiB}, {name: B, subjects: [b.>], maxBytes: 16MiB}]
ephemeral: [e.>]
kv: [{bucket: one, maxBytes: 1MiB}, {bucket: two, maxBytes: 1MiB}]
deadLetter: {maxBytes: 4MiB}
principals:
  - {name: source, identities: [{nkey: '{{nkey "source-%[1]s"}}'}], publish: [a.>, b.>, e.>], kv: {write: [one, two]}}
`, tenant)
		for j, reader := range readers {
			if reader.tenant == tenant {
				fmt.Fprintf(&s, "  - {name: %[1]s, identities: [{nkey: '{{nkey %[2]q}}'}], subscribe: [%[3]s], kv: {read: [%[4]s]}}\n",
					reader.name, reader.name, strings.Join(grants[j].subscribe, ", "), strings.Join(grants[j].buckets, ", "))
			}
		}
	}
	return s.String()
}

// attempt is one request of a reader, by any route.
func attempt(r *rand.Rand, inbox string) (subject string, body any) {
	f, g, stream := one(r, filterPool), one(r, filterPool), one(r, streamPool)
	name := fmt.Sprintf("c%d", r.IntN(4))
	cfg := map[string]any{"ack_policy": "none", "name": name}
	if r.IntN(3) == 0 {
		cfg["deliver_subject"] = inbox + ".push"
	}
	get := one(r, []string{"$JS.API.DIRECT.GET.", "$JS.API.STREAM.MSG.GET."}) + stream
	switch r.IntN(14) {
	case 0:
		cfg["filter_subject"] = f
		return "$JS.API.CONSUMER.CREATE." + stream + "." + name + "." + f, consumerRequest(stream, cfg)
	case 1:
		cfg["filter_subject"] = g
		return "$JS.API.CONSUMER.CREATE." + stream + "." + name + "." + f, consumerRequest(stream, cfg)
	case 2:
		cfg["filter_subject"] = f
		return "$JS.API.CONSUMER.CREATE." + stream + "." + name, consumerRequest(stream, cfg)
	case 3:
		cfg["filter_subjects"] = []string{f, g}
		return "$JS.API.CONSUMER.CREATE." + stream + "." + name, consumerRequest(stream, cfg)
	case 4:
		cfg["durable_name"], cfg["filter_subject"] = name, f
		return "$JS.API.CONSUMER.DURABLE.CREATE." + stream + "." + name, consumerRequest(stream, cfg)
	case 5:
		delete(cfg, "name")
		cfg["filter_subject"], cfg["inactive_threshold"] = f, 1e9
		return "$JS.API.CONSUMER.CREATE." + stream, consumerRequest(stream, cfg)
	case 6:
		return "$JS.API.CONSUMER.CREATE." + stream + "." + name, consumerRequest(stream, cfg)
	case 7:
		return "$JS.API.DIRECT.GET." + stream + "." + f, nil
	case 8:
		return get, map[string]any{"last_by_subj": f}
	case 9:
		return get, map[string]any{"next_by_subj": f, "seq": 1 + r.IntN(9)}
	case 10:
		return get, map[string]any{"multi_last": []string{f, g}, "batch": 9}
	case 11:
		return get, map[string]any{"seq": 1 + r.IntN(9)}
	case 12:
		return get, map[string]any{"seq": 1, "batch": 9, "next_by_subj": f}
	default:
		return "$JS.API.CONSUMER.MSG.NEXT." + stream + "." + name, map[string]any{"batch": 20, "no_wait": true}
	}
}

// TestPropertyDeniedBytesNeverArrive: whatever the policy, and however a reader
// asks, no event reaches it whose subject is not granted to it now; over open
// connections and consumers that outlive the policies they were made under.
func TestPropertyDeniedBytesNeverArrive(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	grants := make([]readGrants, len(readers))
	b := newBroker(t, func(o *brokertest.Options) {
		o.Policy = propertyPolicy(grants)
		o.Change = func(c *broker.Config) {
			quickDrain(c)
			c.Gate.APIRate, c.Gate.APIReadRate = 1_000_000, 1_000_000 // it asks fast
		}
	})
	sources := []*peer{connect(t, b, "source-red"), connect(t, b, "source-blue")}
	peers := make([]*peer, len(readers))
	for i, p := range readers {
		peers[i] = connect(t, b, p.name)
	}
	publish := func(live bool) {
		for i, tenant := range []string{"red", "blue"} {
			for _, s := range liveSubjects {
				check(t, sources[i].Publish(s, []byte("DATA "+tenant+" "+s)))
			}
			if live {
				check(t, sources[i].Flush())
				continue
			}
			for _, s := range append(storedSubjects, keySubjects...) {
				if p, _ := sources[i].ask(t, s, "DATA "+tenant+" "+s); p != nil {
					t.Fatalf("%+v", p)
				}
			}
		}
	}
	publish(false)

	rounds, arrived, tries := 0, 0, 0
	for end := time.Now().Add(propertyTime); rounds < 5 || time.Now().Before(end); rounds++ {
		for i := range grants {
			grants[i] = readGrants{some(r, grantPool, 3), some(r, []string{"one", "two"}, 1)}
		}
		reload(t, b, propertyPolicy(grants))
		inboxes := make([]*nats.Subscription, len(peers))
		subs := make([][]*nats.Subscription, len(peers))
		for i, p := range peers {
			inbox := nats.NewInbox()
			inboxes[i] = must(p.SubscribeSync(inbox + ".>"))(t)
			for _, f := range some(r, filterPool, 4) {
				subs[i] = append(subs[i], must(p.SubscribeSync(f))(t))
			}
			for n := range 25 {
				subject, body := attempt(r, inbox)
				raw := must(json.Marshal(body))(t)
				if body == nil {
					raw = nil
				}
				check(t, p.PublishRequest(subject, fmt.Sprintf("%s.r.%d", inbox, n), raw))
				tries++
			}
			check(t, p.Flush())
		}
		publish(rounds%8 != 0)
		for i, p := range peers {
			// A look-up that is answered by the API after the others.
			if problem, _ := p.ask(t, "$JS.API.INFO", nil); problem != nil {
				t.Fatalf("%+v", problem)
			}
			check(t, p.Flush())
			for _, sub := range append(subs[i], inboxes[i]) {
				for n, _, err := sub.Pending(); err == nil && n > 0; n, _, err = sub.Pending() {
					m, err := sub.NextMsg(patience)
					if errors.Is(err, nats.ErrNoResponders) { // a pull from a consumer that is not there
						continue
					}
					check(t, err)
					arrived += verify(t, seed, i, &grants[i], m)
				}
				_ = sub.Unsubscribe()
			}
			check(t, p.Flush())
		}
	}
	t.Logf("%d policies, %d attempts, %d events read", rounds, tries, arrived)
	if arrived < rounds {
		t.Errorf("%d events in %d rounds: the attempts do not read what they may", arrived, rounds)
	}
}

// verify checks every event in a message, be it the message or an API answer.
func verify(t *testing.T, seed uint64, reader int, g *readGrants, m *nats.Msg) int {
	t.Helper()
	data := string(m.Data)
	var answer struct {
		Message *struct {
			Data []byte `json:"data"`
		} `json:"message"`
	}
	if json.Unmarshal(m.Data, &answer) == nil && answer.Message != nil {
		data = string(answer.Message.Data)
	}
	tenant, subject, ok := strings.Cut(strings.TrimPrefix(data, "DATA "), " ")
	if !ok || !strings.HasPrefix(data, "DATA ") {
		if strings.Contains(data, "DATA ") {
			t.Errorf("seed %d: an event hides in %.200q", seed, data)
		}
		return 0
	}
	if who := readers[reader]; tenant != who.tenant || !g.mayRead(subject) {
		t.Errorf("seed %d: %s/%s read %s of %s by %q with grants %v %v (header %v)", seed, who.tenant, who.name, subject, tenant, m.Subject, g.subscribe, g.buckets, m.Header)
	}
	// Headers tell subjects too.
	if s := m.Header.Get("Nats-Subject"); s != "" && s != subject {
		t.Errorf("seed %d: header says %s, payload %s", seed, s, subject)
	}
	return 1
}

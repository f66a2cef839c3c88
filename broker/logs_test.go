package broker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/signing/keyring"
	"github.com/signetbus/signet/signing/tlog"
)

const logPolicy = `tenant: shop
streams:
  - {name: ORDERS, subjects: [orders.>], maxBytes: 64MiB, log: true}
subjects:
  - {match: orders.>, require: logged}
principals:
  - {name: app, identities: [{nkey: '{{nkey "app"}}'}], publish: [orders.>], subscribe: [orders.>]}
  - {name: auditor, identities: [{nkey: '{{nkey "auditor"}}'}], admin: [log, status]}
  - {name: operator, identities: [{nkey: '{{nkey "operator"}}'}], admin: [audit, log, streams, status]}
`

// watcher keeps every checkpoint that it sees, and what it has verified them with.
type watcher struct {
	t    *testing.T
	api  *admin.API
	ring *keyring.Ring
	seen []*tlog.Note
}

func watchLog(t *testing.T, c *client.Client, root string) *watcher {
	t.Helper()
	w := &watcher{t: t, api: admin.New(c)}
	doc, err := w.api.KeyRing(within(t))
	if err != nil {
		t.Fatal(err)
	}
	if w.ring, err = keyring.Parse(doc.Document, root, time.Now()); err != nil {
		t.Fatal(err)
	}
	return w
}

// await waits for a checkpoint of n leaves; requests may fail while nodes come and go.
func (w *watcher) await(ctx context.Context, n int64) *tlog.Note {
	w.t.Helper()
	var last string
	for {
		once, cancel := context.WithTimeout(ctx, 5*time.Second)
		answer, err := w.api.Log().Checkpoint(once, "ORDERS")
		cancel()
		if err != nil {
			last = err.Error()
		} else {
			note, err := tlog.ParseNote([]byte(answer.Checkpoint))
			if err != nil {
				w.t.Fatal(err)
			}
			if _, err := note.Verify(w.ring); err != nil {
				w.t.Fatal(err)
			}
			w.seen = append(w.seen, note)
			if last = fmt.Sprintf("%d leaves", note.Size); note.Size >= n {
				return note
			}
		}
		select {
		case <-ctx.Done():
			w.t.Fatalf("no checkpoint of %d leaves: %s", n, last)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// oneHistory checks that each checkpoint that was seen only appends to the one before.
func (w *watcher) oneHistory(ctx context.Context) {
	w.t.Helper()
	for i := 1; i < len(w.seen); i++ {
		older, newer := w.seen[i-1], w.seen[i]
		if older.Size > newer.Size && older.Origin.String() == newer.Origin.String() {
			older, newer = newer, older // a node that answers from behind is no fork
		}
		var proof []tlog.Hash
		if older.Size < newer.Size {
			hashes, err := w.api.Log().Consistency(ctx, string(older.Bytes()), string(newer.Bytes()))
			if err != nil {
				w.t.Fatal(err)
			}
			for _, h := range hashes {
				proof = append(proof, tlog.Hash(h))
			}
		}
		if err := tlog.CheckConsistency(&older.Checkpoint, &newer.Checkpoint, proof); err != nil {
			w.t.Fatalf("from %d to %d leaves: %v", older.Size, newer.Size, err)
		}
	}
}

func (w *watcher) verify(ctx context.Context, note *tlog.Note) (compared uint64) {
	w.t.Helper()
	for from := note.First; from < note.Next(); {
		r, err := w.api.Log().Verify(ctx, "ORDERS", string(note.Bytes()), from)
		if err != nil {
			w.t.Fatal(err)
		}
		if r.Finding != nil {
			w.t.Fatalf("%+v", r.Finding)
		}
		compared += r.Compared
		from = r.Next
	}
	return compared
}

// A broker with a policy that demands it keeps the log of a stream: what was published is
// proven offline, and the health says how it is.
func TestBrokerKeepsLog(t *testing.T) {
	b := brokertest.New(t, brokertest.Options{Policy: logPolicy})
	ctx := within(t)
	brokertest.PublishNumbers(ctx, t, b.Client("app"), "orders.created", 0, 300)
	w := watchLog(t, b.Client("auditor"), b.State.Root)
	note := w.await(ctx, 300)
	if got := w.verify(ctx, note); got != 300 {
		t.Errorf("%d events compared", got)
	}
	seq, err := w.api.Log().Find(ctx, "ORDERS", "number 41")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := w.api.Log().Prove(ctx, "ORDERS", seq, seq+9)
	if err != nil {
		t.Fatal(err)
	}
	p, err := tlog.ParseProof(doc)
	if err != nil {
		t.Fatal(err)
	}
	v, err := p.Verify(b.State.Root, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, l := range v.Leaves {
		if l.Attestation == nil || l.Attestation.Principal != "shop/app" || string(l.Event.Data) != fmt.Sprint(41+i) {
			t.Errorf("sequence %d: %+v, %v", l.Sequence, l.Event, l.Unattested)
		}
	}
	st, err := w.api.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range st.Health {
		if h.Part == "log" && !h.OK {
			t.Errorf("health: %s", h.Detail)
		}
	}
}

// Once the log is written here, the gate tells it of every event, and the log that comes of
// it is that of what is stored.
func TestLogTakesDigestsFromTheGate(t *testing.T) {
	b := brokertest.New(t, brokertest.Options{Policy: logPolicy})
	ctx := within(t)
	brokertest.PublishNumbers(ctx, t, b.Client("app"), "orders.created", 0, 10)
	w := watchLog(t, b.Client("auditor"), b.State.Root)
	w.await(ctx, 10)
	brokertest.PublishNumbers(ctx, t, b.Client("app"), "orders.created", 10, 310)
	note := w.await(ctx, 310)
	for broker.DigestsTaken(b.Broker) < 300 { // counted right after the checkpoint is stored
		select {
		case <-ctx.Done():
			t.Fatalf("%d digests of 300 events were taken from the gate", broker.DigestsTaken(b.Broker))
		case <-time.After(10 * time.Millisecond):
		}
	}
	if got := w.verify(ctx, note); got != 310 {
		t.Errorf("%d events compared", got)
	}
}

// An auditor reads the log and cannot end it; whoever may, leaves a record.
func TestRestartOfALogNeedsMoreThanReading(t *testing.T) {
	b := brokertest.New(t, brokertest.Options{Policy: logPolicy})
	ctx := within(t)
	brokertest.PublishNumbers(ctx, t, b.Client("app"), "orders.created", 0, 10)
	w := watchLog(t, b.Client("auditor"), b.State.Root)
	before := w.await(ctx, 10)
	if err := w.api.Log().Restart(ctx, "ORDERS"); !errors.Is(err, client.ErrDenied) {
		t.Fatalf("with the grant to read: %v", err)
	}
	if now := w.await(ctx, 10); now.Origin.String() != before.Origin.String() {
		t.Fatal("the log was begun anew")
	}
	api := admin.New(b.Client("operator"))
	if err := api.Log().Restart(ctx, "ORDERS"); err != nil {
		t.Fatal(err)
	}
	for w.await(ctx, 0).Origin.String() == before.Origin.String() {
		if ctx.Err() != nil {
			t.Fatal("the log was not begun anew")
		}
	}
	w.await(ctx, 10)
	for {
		list, err := api.Audit(ctx, admin.AuditQuery{Kind: "admin"}, 0)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for _, raw := range list.Records {
			var r struct{ Who, Subject, Outcome, Detail string }
			if err := json.Unmarshal(raw, &r); err != nil {
				t.Fatal(err)
			}
			if r.Subject == "log.restart" {
				seen[r.Who+" "+r.Outcome] = true
			}
		}
		if seen["shop/auditor begun"] && !seen["shop/auditor ok"] && seen["shop/operator begun"] && seen["shop/operator ok"] {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("on record: %v", seen)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// The node that writes the log is stopped, and comes back, again and again, while events
// flow: the log goes on within seconds and is one history.
func TestClusterLogGoesOn(t *testing.T) {
	c := brokertest.NewCluster(t, 3, brokertest.Options{Policy: logPolicy})
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	app := c.Client("app")
	w := watchLog(t, c.Client("auditor"), c.Nodes[0].State.Root)
	n := 0
	more := func() {
		brokertest.PublishNumbers(ctx, t, app, "orders.created", n, n+100)
		n += 100
	}
	more()
	w.await(ctx, int64(n))
	for round := range 3 {
		c.Stop(round)
		start := time.Now()
		more()
		w.await(ctx, int64(n))
		t.Logf("node %d stopped: %d more events logged after %s", round+1, 100, time.Since(start).Round(time.Millisecond))
		c.Start(round)
		more()
		w.await(ctx, int64(n))
	}
	last := w.await(ctx, int64(n))
	w.oneHistory(ctx)
	if got := w.verify(ctx, last); got < uint64(n) {
		t.Errorf("%d of %d events compared", got, n)
	}
}

// The node that writes the log is killed with SIGKILL, and another paused and woken.
func TestClusterLogAfterKill(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	c, err := brokertest.NewProcesses(ctx, brokertest.ProcessOptions{Nodes: 3, Dir: t.TempDir(), Policy: logPolicy})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if err := c.StartAll(ctx); err != nil {
		t.Fatal(err)
	}
	connect := func(urls, principal string) *client.Client {
		st := c.State(0)
		cl, err := client.Connect(ctx, urls, client.WithNkeySeedFile(st.Creds[principal]), client.WithTLSRoots(st.CA), client.WithRoot(st.Root))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(cl.Close)
		return cl
	}
	app := connect(c.URLs(), "app")
	w := watchLog(t, connect(c.URLs(), "auditor"), c.State(0).Root)
	n := 0
	more := func() {
		brokertest.PublishNumbers(ctx, t, app, "orders.created", n, n+100)
		n += 100
	}
	more()
	w.await(ctx, int64(n))
	for i := range 3 { // whichever writes the log is among them
		c.Kill(i)
		start := time.Now()
		more()
		w.await(ctx, int64(n))
		t.Logf("node %d killed: 100 more events logged after %s", i+1, time.Since(start).Round(time.Millisecond))
		if err := c.StartNodes(ctx, i); err != nil {
			t.Fatal(err)
		}
	}
	// A client of a node that is paused waits for minutes: these stay with the first.
	app, w.api = connect(c.URL(0), "app"), admin.New(connect(c.URL(0), "auditor"))
	for i := 1; i < 3; i++ {
		if err := c.Pause(i); err != nil {
			t.Fatal(err)
		}
		more()
		w.await(ctx, int64(n))
		if err := c.Resume(i); err != nil {
			t.Fatal(err)
		}
		more()
	}
	last := w.await(ctx, int64(n))
	w.oneHistory(ctx)
	if got := w.verify(ctx, last); got < uint64(n) {
		t.Errorf("%d of %d events compared", got, n)
	}
}

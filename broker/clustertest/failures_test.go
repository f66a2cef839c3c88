package clustertest_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/internal/freeport"
)

// failPolicy has a stream of each retention. What fails is tried often enough that a node
// is killed in the middle.
const failPolicy = `
tenant: shop
streams:
  - {name: LIMITS, subjects: [limits.>], maxBytes: 16MiB}
  - {name: INTEREST, subjects: [interest.>], maxBytes: 16MiB, retention: interest}
  - {name: WORK, subjects: [work.>], maxBytes: 16MiB, retention: workqueue}
retry: {maxDeliveries: 4, backoff: {min: 100ms, max: 400ms}}
deadLetter: {maxBytes: 16MiB}
principals:
  - {name: writer, identities: [{nkey: {{nkey "writer"}}}], publish: [limits.>, interest.>, work.>]}
  - {name: worker, identities: [{nkey: {{nkey "worker"}}}], subscribe: [limits.>, interest.>, work.>]}
  - {name: root, identities: [{nkey: {{nkey "root"}}}], admin: [dlq, status]}
`

// failEvents is how many events each stream has, all of which fail for ever.
const failEvents = 20

var failStreams = []string{"LIMITS", "INTEREST", "WORK"}

// delivery is an event as a worker got it.
type delivery struct {
	header  nats.Header
	payload []byte
}

// failures are workers that fail on everything, and what they saw.
type failures struct {
	t    *testing.T
	ctx  context.Context
	urls string
	st   *broker.State
	tell func(failLine) // of a process of its own; nil in that of the test

	mu   sync.Mutex
	seen map[string]delivery // by stream and sequence
	got  int
	most uint64 // highest number of a delivery
}

// connect connects with unmodified nats.go; while nodes are down nobody may answer.
func (f *failures) connect(principal string) (*nats.Conn, jetstream.JetStream, error) {
	pem, err := os.ReadFile(f.st.CA)
	if err != nil {
		return nil, nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	auth, err := nats.NkeyOptionFromSeed(f.st.Creds[principal])
	if err != nil {
		return nil, nil, err
	}
	nc, err := nats.Connect(f.urls, auth, nats.Secure(&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}), nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond), nats.Timeout(10*time.Second))
	if err != nil {
		return nil, nil, err
	}
	js, err := jetstream.New(nc)
	return nc, js, err
}

// again does what fails while a node is down until it works.
func (f *failures) again(what string, do func(ctx context.Context) error) {
	f.t.Helper()
	poll := time.NewTicker(100 * time.Millisecond)
	defer poll.Stop()
	for {
		ctx, cancel := context.WithTimeout(f.ctx, 5*time.Second)
		err := do(ctx)
		cancel()
		if err == nil {
			return
		}
		select {
		case <-f.ctx.Done():
			f.t.Fatalf("never: %s: %v", what, err)
		case <-poll.C:
		}
	}
}

// work fails on what one stream has, from connections that die without a word after a
// while, until ctx ends.
func (f *failures) work(ctx context.Context, stream string) {
	for life := 0; ctx.Err() == nil; life++ {
		nc, js, err := f.connect("worker")
		if err != nil {
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		for batch := 0; batch < 5+life%3 && ctx.Err() == nil; batch++ {
			f.batch(ctx, js, stream)
		}
		nc.Close() // what it had taken is acknowledged by nobody
	}
}

func (f *failures) batch(ctx context.Context, js jetstream.JetStream, stream string) {
	call, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	c, err := js.Consumer(call, stream, "w")
	if err != nil {
		return // no leader now
	}
	msgs, err := c.Fetch(10, jetstream.FetchMaxWait(500*time.Millisecond))
	if err != nil {
		return
	}
	for m := range msgs.Messages() {
		meta, err := m.Metadata()
		if err != nil {
			continue // no event
		}
		f.note(fmt.Sprintf("%s:%d", stream, meta.Sequence.Stream), meta.NumDelivered, delivery{m.Headers(), m.Data()})
		switch meta.Sequence.Stream % 3 {
		case 0:
			_ = m.Nak()
		case 1:
			_ = m.TermWithReason("no use")
		case 2: // nothing: its ack wait ends
		}
	}
}

func (f *failures) note(id string, delivered uint64, now delivery) {
	if f.tell != nil {
		f.tell(failLine{id, delivered, now.header, now.payload})
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.most = max(f.most, delivered)
	f.got++
	if was, ok := f.seen[id]; ok && !reflect.DeepEqual(was, now) {
		f.t.Errorf("%s was %v and is %v", id, was, now)
	}
	f.seen[id] = now
}

// letters lists all dead letters; it fails the test where two are of one failure.
func (f *failures) letters(ctx context.Context, api *admin.API) (map[string]admin.DeadLetter, error) {
	out := map[string]admin.DeadLetter{}
	var after uint64
	for {
		page, err := api.DLQList(ctx, admin.DLQQuery{Cursor: after, Limit: admin.MaxListLimit})
		if err != nil {
			return nil, err
		}
		for _, l := range page.Entries {
			id := fmt.Sprintf("%s:%d", l.Stream, l.StreamSeq)
			if out[id].Seq != 0 || l.Consumer != "w" {
				f.t.Errorf("dead letter %d of %s, consumer %s, beside %d", l.Seq, id, l.Consumer, out[id].Seq)
			}
			out[id] = l
		}
		if !page.More {
			return out, nil
		}
		after = page.Cursor
	}
}

// run publishes, lets the workers fail, kills one that is a process of its own and calls
// kill, three times while they do, and checks that every event is one dead letter with the
// bytes that the workers got.
func (f *failures) run(kill func(round int)) {
	t := f.t
	nc, js, err := f.connect("worker")
	ok(t, err)
	defer nc.Close()
	for _, stream := range failStreams {
		f.again("consumer of "+stream, func(ctx context.Context) error {
			_, err := js.CreateOrUpdateConsumer(ctx, stream, jetstream.ConsumerConfig{Durable: "w", AckPolicy: jetstream.AckExplicitPolicy, AckWait: 2 * time.Second, MaxDeliver: 10})
			return err
		})
	}
	writer, err := client.Connect(f.ctx, f.urls, client.WithNkeySeedFile(f.st.Creds["writer"]), client.WithTLSRoots(f.st.CA), client.WithRoot(f.st.Root))
	ok(t, err)
	for _, stream := range failStreams {
		brokertest.PublishNumbers(f.ctx, t, writer, strings.ToLower(stream)+".a", 0, failEvents)
	}
	writer.Close()
	root, err := client.Connect(f.ctx, f.urls, client.WithNkeySeedFile(f.st.Creds["root"]), client.WithTLSRoots(f.st.CA), client.WithRoot(f.st.Root))
	ok(t, err)
	defer root.Close()
	api := admin.New(root)

	alone := &workerProcess{f: f}
	alone.start()
	defer func() { alone.kill() }()
	work, stop := context.WithCancel(f.ctx)
	var workers sync.WaitGroup
	for _, stream := range failStreams {
		for range 2 {
			workers.Go(func() { f.work(work, stream) })
		}
	}
	defer workers.Wait()
	defer stop()
	all := failEvents * len(failStreams)
	var got map[string]admin.DeadLetter
	await := func(n int) {
		t.Helper()
		f.again(fmt.Sprint(n, " dead letters"), func(ctx context.Context) error {
			var err error
			if got, err = f.letters(ctx, api); err == nil && len(got) < n {
				err = fmt.Errorf("there are %d", len(got))
			}
			return err
		})
	}
	for round := range len(failStreams) {
		await(1 + round*all/4)
		f.again("a delivery to the worker that is killed", func(ctx context.Context) (err error) {
			if got, err = f.letters(ctx, api); err == nil && alone.got.Load() == 0 && (round == 0 || len(got) < all) {
				err = fmt.Errorf("none, and %d dead letters", len(got))
			}
			return err
		})
		t.Logf("round %d: a worker is killed after %d deliveries", round, alone.got.Load())
		alone.kill()
		kill(round)
		alone.start()
	}
	await(all)
	for _, stream := range failStreams {
		f.again(stream+" is settled", func(ctx context.Context) error {
			c, err := js.Consumer(ctx, stream, "w")
			if err != nil {
				return err
			}
			if i := c.CachedInfo(); i.NumAckPending > 0 || i.NumPending > 0 {
				return fmt.Errorf("%d are pending, %d to come", i.NumAckPending, i.NumPending)
			}
			s, err := js.Stream(ctx, stream)
			if err != nil {
				return err
			}
			if left := s.CachedInfo().State.Msgs; left > 0 && stream != "LIMITS" {
				return fmt.Errorf("%d events are left", left)
			}
			return nil
		})
	}
	stop()
	workers.Wait()
	alone.kill()
	await(all)
	if len(got) != all {
		t.Errorf("%d dead letters of %d events", len(got), all)
	}
	f.compare(api, got)
	t.Logf("%d deliveries, the highest number %d; %d dead letters", f.got, f.most, len(got))
}

// compare holds the bytes of the dead letters against what the workers got.
func (f *failures) compare(api *admin.API, got map[string]admin.DeadLetter) {
	for id, l := range got {
		var letter *admin.StoredLetter
		f.again("dead letter "+id, func(ctx context.Context) (err error) {
			letter, err = api.DLQShow(ctx, l.Seq)
			return err
		})
		want, ok := f.seen[id]
		header, err := nats.DecodeHeadersMsg(letter.Header)
		if !ok || err != nil || !reflect.DeepEqual(header, want.header) || !bytes.Equal(letter.Payload, want.payload) || header.Get("ce-attestation") == "" {
			f.t.Errorf("dead letter of %s (seen: %v, %v): %v %q, delivered was %v %q", id, ok, err, header, letter.Payload, want.header, want.payload)
		}
	}
}

// TestClusterConsumerFailures: three nodes, each killed (kill -9) as the leader of a stream
// whose events all fail, while workers die too: one dead letter for each event, with its
// original bytes, on streams of each retention.
func TestClusterConsumerFailures(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	c, err := brokertest.NewProcesses(ctx, brokertest.ProcessOptions{Nodes: 3, Dir: t.TempDir(), Binary: binary, Policy: failPolicy})
	ok(t, err)
	defer c.Close()
	ok(t, c.StartAll(ctx))
	f := &failures{t: t, ctx: ctx, urls: c.URLs(), st: c.State(0), seen: map[string]delivery{}}
	f.run(func(round int) {
		leader := -1
		f.again("leader of "+failStreams[round], func(ctx context.Context) error {
			nc, js, err := f.connect("worker")
			if err != nil {
				return err
			}
			defer nc.Close()
			s, err := js.Stream(ctx, failStreams[round])
			if err != nil {
				return err
			}
			name := s.CachedInfo().Cluster.Leader
			leader = slices.IndexFunc([]int{0, 1, 2}, func(i int) bool { return c.Name(i) == name })
			if leader < 0 {
				return errors.New("none")
			}
			return nil
		})
		c.Kill(leader)
		if err := c.Start(ctx, leader); err != nil {
			t.Fatalf("%v\n%s", err, c.Log(leader, 20))
		}
	})
}

// TestClusterOfOneConsumerFailures is the same on a single node, which is the gate, the
// keeper of failures and the store: all of it is killed.
func TestClusterOfOneConsumerFailures(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	addr, err := freeport.Addr()
	ok(t, err)
	st, err := broker.Setup{Dir: t.TempDir(), Name: "one", Listen: addr, Dev: true, Policy: failPolicy}.Run()
	ok(t, err)
	var node *exec.Cmd
	start := func() {
		node = exec.Command(binary, "serve", "--config", st.Config)
		node.Env = append(os.Environ(), "SIGNET_OPS_LISTEN=off")
		ok(t, node.Start())
	}
	kill := func() {
		_ = node.Process.Kill()
		_ = node.Wait()
	}
	start()
	defer func() { kill() }()
	f := &failures{t: t, ctx: ctx, urls: "tls://" + addr, st: st, seen: map[string]delivery{}}
	f.again("the node answers", func(context.Context) error {
		nc, _, err := f.connect("worker")
		if err == nil {
			nc.Close()
		}
		return err
	})
	f.run(func(int) {
		kill()
		start()
	})
}

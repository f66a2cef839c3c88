package backup_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/internal/backupfile"
)

const shop = `tenant: shop
streams:
  - {name: ORDERS, subjects: [orders.>], maxBytes: 32MiB}
  - {name: BILLS, subjects: [bills.>], maxBytes: 4MiB}
kv: [{bucket: prices, maxBytes: 1MiB, history: 3}]
objects: [{bucket: scans, maxBytes: 4MiB}]
deadLetter: {maxBytes: 2MiB}
schemas:
  - {name: bill, version: 1, text: '{"type":"object","required":["id"]}'}
subjects:
  - {match: bills.>, schema: bill}
principals:
  - name: app
    identities: [{nkey: '{{nkey "app"}}'}]
    publish: [orders.>, bills.>]
    subscribe: [orders.>, bills.>]
    kv: {read: [prices], write: [prices]}
    objects: {read: [scans], write: [scans]}
  - {name: keeper, identities: [{nkey: '{{nkey "keeper"}}'}], admin: [backup]}
  - {name: boss, identities: [{nkey: '{{nkey "boss"}}'}], admin: [dlq, keys, policy, refusals, status, streams, consumers]}
---
tenant: mill
streams: [{name: ORDERS, subjects: [orders.>], maxBytes: 4MiB}]
deadLetter: {maxBytes: 1MiB}
principals:
  - {name: miller, identities: [{nkey: '{{nkey "miller"}}'}], publish: [orders.>], admin: [backup]}
`

func quick(c *broker.Config) { c.Drain = time.Second }

func start(t *testing.T, dir string) *brokertest.Broker {
	t.Helper()
	return brokertest.New(t, brokertest.Options{Policy: shop, Change: quick, Dir: dir})
}

// sibling is a new folder with the keys and credentials of another, and nothing
// stored: what a cluster that lost its disks starts from.
func sibling(t *testing.T, of *brokertest.Broker) string {
	t.Helper()
	dir := t.TempDir()
	for _, sub := range []string{"keys", "creds", "ca", "tls"} {
		if err := os.CopyFS(filepath.Join(dir, sub), os.DirFS(filepath.Join(of.State.Dir, sub))); err != nil {
			t.Fatal(err)
		}
		if err := filepath.WalkDir(filepath.Join(dir, sub), func(path string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				err = os.Chmod(path, 0o600)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func js(t *testing.T, b *brokertest.Broker, principal string) jetstream.JetStream {
	t.Helper()
	return must(jetstream.New(b.NATS(principal)))(t)
}

// fill stores some of everything: events, a dead letter, a bucket with history, an
// object of several chunks, a durable half way.
func fill(t *testing.T, b *brokertest.Broker) {
	t.Helper()
	ctx := t.Context()
	j := js(t, b, "app")
	for i := range 100 {
		must(j.Publish(ctx, fmt.Sprintf("orders.eu.n%d", i%7), fmt.Appendf(nil, `{"n":%d}`, i)))(t)
	}
	must(j.Publish(ctx, "bills.paid", []byte(`{"id":1}`)))(t)
	if _, err := j.Publish(ctx, "bills.paid", []byte(`{}`)); err == nil {
		t.Fatal("the schema lets everything through")
	}
	kv := must(j.KeyValue(ctx, "prices"))(t)
	for i := range 5 {
		must(kv.PutString(ctx, "bread", fmt.Sprint(i)))(t)
	}
	objects := must(j.ObjectStore(ctx, "scans"))(t)
	must(objects.PutBytes(ctx, "page", bytes.Repeat([]byte("scan "), 100_000)))(t)
	c := must(j.CreateConsumer(ctx, "ORDERS", jetstream.ConsumerConfig{Durable: "work", FilterSubject: "orders.eu.>", AckPolicy: jetstream.AckExplicitPolicy}))(t)
	batch := must(c.Fetch(10, jetstream.FetchMaxWait(time.Minute)))(t)
	for m := range batch.Messages() {
		if err := m.DoubleAck(ctx); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, "the dead letter", func() bool {
		s, err := js(t, b, "boss").Stream(ctx, "DLQ")
		return err == nil && s.CachedInfo().State.Msgs == 1
	})
}

// waitFor polls what another goroutine of the broker does on its own time.
func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(time.Minute)
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s did not come", what)
		}
	}
}

func save(t *testing.T, b *brokertest.Broker) []byte {
	t.Helper()
	var buf bytes.Buffer
	n, err := admin.New(b.Client("keeper")).Backup(t.Context(), "shop", &buf)
	if err != nil || n != int64(buf.Len()) {
		t.Fatalf("%d of %d bytes: %v", n, buf.Len(), err)
	}
	return buf.Bytes()
}

func restore(t *testing.T, b *brokertest.Broker, file []byte, change ...func(*admin.RestoreRequest)) (*admin.RestoreReport, error) {
	t.Helper()
	q := admin.RestoreRequest{Bytes: int64(len(file)), Tenant: "shop"}
	for _, c := range change {
		c(&q)
	}
	return admin.New(b.Client("keeper")).Restore(t.Context(), bytes.NewReader(file), q)
}

func state(t *testing.T, b *brokertest.Broker, stream string) jetstream.StreamState {
	t.Helper()
	return must(js(t, b, "boss").Stream(t.Context(), stream))(t).CachedInfo().State
}

// sameStream compares two streams message by message, byte for byte.
func sameStream(t *testing.T, a, b *brokertest.Broker, principal, stream string, last uint64) {
	t.Helper()
	x := must(js(t, a, principal).Stream(t.Context(), stream))(t)
	y := must(js(t, b, principal).Stream(t.Context(), stream))(t)
	for seq := uint64(1); seq <= last; seq++ {
		m, err := x.GetMsg(t.Context(), seq)
		n, err2 := y.GetMsg(t.Context(), seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) && errors.Is(err2, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil || err2 != nil {
			t.Fatalf("%s %d: %v; %v", stream, seq, err, err2)
		}
		if m.Subject != n.Subject || !m.Time.Equal(n.Time) || !bytes.Equal(m.Data, n.Data) || fmt.Sprint(m.Header) != fmt.Sprint(n.Header) {
			t.Fatalf("%s %d: %v\nrestored: %v", stream, seq, m, n)
		}
	}
}

func TestBackupRoundTrip(t *testing.T) {
	a := start(t, "")
	fill(t, a)
	file := save(t, a)
	proof, err := backupfile.Verify(bytes.NewReader(file), backupfile.Trust{Root: a.State.Root})
	if err != nil {
		t.Fatal(err)
	}
	if proof.Proven != 101 || proof.Unproven == 0 || len(proof.Manifest.Streams) != 6 || proof.Head.Tenant != "shop" {
		t.Errorf("%d proven, %d not, %+v", proof.Proven, proof.Unproven, proof.Manifest)
	}

	b := start(t, sibling(t, a))
	plan, err := restore(t, b, file, func(q *admin.RestoreRequest) { q.DryRun = true })
	if err != nil || !plan.DryRun || len(plan.Streams) != 6 || plan.Proven != 101 {
		t.Fatalf("dry run: %+v, %v", plan, err)
	}
	if s := state(t, b, "ORDERS"); s.LastSeq != 0 {
		t.Fatalf("the dry run restored: %+v", s)
	}
	report, err := restore(t, b, file)
	if err != nil || report.DryRun || report.Proven != 101 {
		t.Fatalf("%+v, %v", report, err)
	}
	sameStream(t, a, b, "app", "ORDERS", 100)
	sameStream(t, a, b, "app", "BILLS", 1)
	sameStream(t, a, b, "app", "KV_prices", 5)
	if x, y := state(t, a, "DLQ"), state(t, b, "DLQ"); x.Msgs != 1 || y.Msgs != 1 || !x.FirstTime.Equal(y.FirstTime) {
		t.Errorf("dead letters: %+v, restored %+v", x, y)
	}
	j := js(t, b, "app")
	if e := must(must(j.KeyValue(t.Context(), "prices"))(t).Get(t.Context(), "bread"))(t); string(e.Value()) != "4" {
		t.Errorf("bread costs %s", e.Value())
	}
	if page := must(must(j.ObjectStore(t.Context(), "scans"))(t).GetBytes(t.Context(), "page"))(t); len(page) != 500_000 {
		t.Errorf("the object has %d bytes", len(page))
	}
	c := must(j.Consumer(t.Context(), "ORDERS", "work"))(t)
	if at := c.CachedInfo().AckFloor.Stream; at != 10 {
		t.Errorf("the durable is at %d", at)
	}
	verified(t, b, 100)
	if ack := must(j.Publish(t.Context(), "orders.eu.more", []byte(`{}`)))(t); ack.Sequence != 101 {
		t.Errorf("the next event has the sequence %d", ack.Sequence)
	}
	if _, err := restore(t, b, file); !errors.Is(err, client.ErrConflict) {
		t.Errorf("restored over events: %v", err)
	}
}

// verified reads all orders with the SDK, which hands out what verifies only.
func verified(t *testing.T, b *brokertest.Broker, want int) {
	t.Helper()
	got := make(chan uint64, want)
	bad := make(chan client.InvalidEvent, 1)
	c := b.Client("app", client.WithInvalidHandler(func(e client.InvalidEvent) {
		select {
		case bad <- e:
		default:
		}
	}))
	s, err := c.Subscribe(t.Context(), "orders.>", func(_ context.Context, _ *client.Delivery) error { got <- 1; return nil })
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	for range want {
		select {
		case <-got:
		case e := <-bad:
			t.Fatalf("not verified: %+v", e)
		case <-time.After(time.Minute):
			t.Fatal("events are missing")
		}
	}
}

// A backup is made while events flow; it holds a prefix of them without a hole, and
// nobody who published was refused.
func TestBackupWhileEventsFlow(t *testing.T) {
	a := start(t, "")
	fill(t, a)
	j := js(t, a, "app")
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	var published atomic.Uint64
	go func() {
		defer close(failed)
		for i := 0; ctx.Err() == nil; i++ {
			if _, err := j.Publish(ctx, "orders.flow", fmt.Appendf(nil, `{"i":%d}`, i)); err != nil && ctx.Err() == nil {
				failed <- err
				return
			}
			published.Add(1)
		}
	}()
	for range 3 {
		from := published.Load()
		file := save(t, a)
		proof, err := backupfile.Verify(bytes.NewReader(file), backupfile.Trust{Root: a.State.Root})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range proof.Manifest.Streams {
			if s.Name == "ORDERS" && (s.Messages < 100+from || s.Messages != s.LastSeq) {
				t.Errorf("%d acknowledged before, saved %+v", 100+from, s)
			}
		}
		waitFor(t, "more events", func() bool { return published.Load() > from })
	}
	cancel()
	if err := <-failed; err != nil {
		t.Errorf("publish beside a backup: %v", err)
	}
}

// Nothing of a backup can change unseen, and what was refused leaves nothing.
func TestTamperedBackupsAreRefused(t *testing.T) {
	a := start(t, "")
	fill(t, a)
	file := save(t, a)
	trust := backupfile.Trust{Root: a.State.Root}
	// The beginning, the end and a sample of what is between.
	step := max(1, len(file)/250) // internal/backupfile tries every byte of a small file
	for i := 0; i < len(file); {
		bad := bytes.Clone(file)
		bad[i] ^= 1 << (i % 8)
		if _, err := backupfile.Verify(bytes.NewReader(bad), trust); err == nil {
			t.Fatalf("byte %d of %d changed, and it verified", i, len(file))
		}
		if i < 64 || i > len(file)-64 {
			i++
		} else {
			i += step
		}
	}
	for _, n := range []int{0, 1, 12, 100, len(file) / 2, len(file) - 1} {
		if _, err := backupfile.Verify(bytes.NewReader(file[:n]), trust); !errors.Is(err, backupfile.ErrFormat) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
	b := start(t, sibling(t, a))
	for name, bad := range map[string][]byte{
		"flipped": flip(file, len(file)/2), "truncated": file[:len(file)-10], "longer": append(bytes.Clone(file), 0), "other": []byte("hello, world, I am no backup"),
	} {
		if _, err := restore(t, b, bad); !errors.Is(err, client.ErrBadSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, stream := range []string{"ORDERS", "BILLS", "KV_prices", "OBJ_scans", "DLQ"} {
		if s := state(t, b, stream); s.LastSeq != 0 {
			t.Errorf("%s: something stayed: %+v", stream, s)
		}
	}
	if _, err := restore(t, b, file); err != nil {
		t.Errorf("the good one: %v", err)
	}
}

func flip(b []byte, i int) []byte {
	b = bytes.Clone(b)
	b[i] ^= 1
	return b
}

func TestForeignBackupsAreRefused(t *testing.T) {
	a := start(t, "")
	fill(t, a)
	file := save(t, a)
	other := start(t, "")
	_, err := restore(t, other, file)
	var refused *client.Error
	if !errors.As(err, &refused) || refused.Name != "BackupRefused" || !bytes.Contains([]byte(refused.Detail), []byte("a snapshot from another cluster")) {
		t.Fatalf("another root: %v", err)
	}
	// The root alone is not enough: readers here could not verify the events.
	if _, err := restore(t, other, file, func(q *admin.RestoreRequest) { q.TrustRoot = a.State.Root }); !errors.Is(err, client.ErrBadSignature) {
		t.Fatalf("with a root whose keys nobody here knows: %v", err)
	}
	// The backup of another tenant of the same cluster.
	b := start(t, sibling(t, a))
	c := b.Client("miller")
	if _, err := admin.New(c).Restore(t.Context(), bytes.NewReader(file), admin.RestoreRequest{Bytes: int64(len(file))}); !errors.Is(err, client.ErrBadSignature) && !errors.Is(err, client.ErrConflict) {
		t.Fatalf("into another tenant: %v", err)
	}
	if s := state(t, other, "ORDERS"); s.LastSeq != 0 {
		t.Errorf("something stayed: %+v", s)
	}
}

func TestWhoMayNot(t *testing.T) {
	a := start(t, "")
	fill(t, a)
	for _, who := range []string{"app", "boss"} {
		if _, err := admin.New(a.Client(who)).Backup(t.Context(), "", io.Discard); !errors.Is(err, client.ErrDenied) {
			t.Errorf("%s: %v", who, err)
		}
		if _, err := admin.New(a.Client(who)).Restore(t.Context(), bytes.NewReader([]byte("x")), admin.RestoreRequest{Bytes: 1}); !errors.Is(err, client.ErrDenied) {
			t.Errorf("%s: %v", who, err)
		}
	}
	if _, err := admin.New(a.Client("keeper")).Backup(t.Context(), "mill", io.Discard); !errors.Is(err, client.ErrDenied) {
		t.Errorf("another tenant: %v", err)
	}
	// A session is its owner's alone, and a tenant has one.
	c, d := a.Client("keeper"), a.Client("miller")
	var opened adminapi.BackupOpened
	if err := c.API(t.Context(), "backup", "open", adminapi.BackupOpenRequest{}, &opened); err != nil {
		t.Fatal(err)
	}
	if err := d.API(t.Context(), "backup", "read", adminapi.BackupReadRequest{Session: opened.Session}, nil); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("another's session: %v", err)
	}
	if err := c.API(t.Context(), "backup", "open", adminapi.BackupOpenRequest{}, nil); !errors.Is(err, client.ErrConflict) {
		t.Errorf("a second session: %v", err)
	}
	if err := c.API(t.Context(), "backup", "write", adminapi.RestoreWriteRequest{Session: opened.Session, Data: []byte("x")}, nil); !errors.Is(err, client.ErrConflict) {
		t.Errorf("a part for a backup: %v", err)
	}
	// A part may be asked for again, one that was not made yet may not.
	var one, two adminapi.BackupPart
	for _, part := range []*adminapi.BackupPart{&one, &two} {
		if err := c.API(t.Context(), "backup", "read", adminapi.BackupReadRequest{Session: opened.Session}, part); err != nil {
			t.Fatal(err)
		}
	}
	if len(one.Data) == 0 || !bytes.Equal(one.Data, two.Data) {
		t.Error("a repeated request has another answer")
	}
	if err := c.API(t.Context(), "backup", "read", adminapi.BackupReadRequest{Session: opened.Session, Offset: 1}, nil); !errors.Is(err, client.ErrConflict) {
		t.Errorf("an offset of nothing: %v", err)
	}
	if err := c.API(t.Context(), "backup", "close", adminapi.BackupSessionRequest{Session: opened.Session}, nil); err != nil {
		t.Fatal(err)
	}
	save(t, a)
}

// What the policy gives a tenant bounds what may be sent; streams that hold
// something, or that the policy does not have, are refused unless they are skipped.
func TestRestoreRefusesWhatDoesNotFit(t *testing.T) {
	a := start(t, "")
	fill(t, a)
	file := save(t, a)
	b := start(t, sibling(t, a))
	if _, err := restore(t, b, file, func(q *admin.RestoreRequest) { q.Bytes = 1 << 40 }); !errors.Is(err, client.ErrConflict) {
		t.Errorf("a terabyte: %v", err)
	}
	must(js(t, b, "app").Publish(t.Context(), "bills.paid", []byte(`{"id":2}`)))(t)
	if _, err := restore(t, b, file); !errors.Is(err, client.ErrConflict) {
		t.Errorf("over an event: %v", err)
	}
	report, err := restore(t, b, file, func(q *admin.RestoreRequest) { q.Skip = []string{"BILLS"} })
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range report.Streams {
		if s.Skipped != (s.Name == "BILLS") {
			t.Errorf("%+v", s)
		}
	}
	if s := state(t, b, "BILLS"); s.Msgs != 1 {
		t.Errorf("the skipped stream has %+v", s)
	}
	verified(t, b, 100)
}

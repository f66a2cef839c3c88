package translog

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
	"github.com/rs/zerolog"

	"github.com/signetbus/signet/broker/internal/embed"
	"github.com/signetbus/signet/broker/internal/integrity"
	"github.com/signetbus/signet/broker/store"
	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
	"github.com/signetbus/signet/signing/tlog"
)

const (
	system  = "SYSTEM" // account of AUDIT and LOG in these tests
	patient = time.Minute
)

// rig is a real embedded server with the streams AUDIT, LOG and, in the tenant shop,
// ORDERS.
type rig struct {
	tb     testing.TB
	dir    string
	server *embed.Server
	store  *store.Store
	signer *signing.Signer
	ring   *keyring.Ring
	doc    []byte
	root   string
	leads  atomic.Bool
	// loose: ORDERS allows deletes, so its log is read from the server and not from files.
	loose bool
}

func newRig(tb testing.TB) *rig { return newRigKeeping(tb, 1) }

func newLooseRig(tb testing.TB) *rig { return makeRig(tb, &rig{loose: true}, 1) }

// newRigKeeping is newRig with a LOG that keeps so many messages of each subject, -1 for
// all.
func newRigKeeping(tb testing.TB, perSubject int64) *rig {
	tb.Helper()
	return makeRig(tb, &rig{}, perSubject)
}

func makeRig(tb testing.TB, r *rig, perSubject int64) *rig {
	tb.Helper()
	r.tb, r.dir = tb, tb.TempDir()
	r.leads.Store(true)
	r.keys()
	r.start()
	tb.Cleanup(r.end)
	r.makeStreams(perSubject)
	return r
}

func (r *rig) keys() {
	seed := func(prefix nkeys.PrefixByte, fill byte) []byte {
		s, err := nkeys.EncodeSeed(prefix, bytes.Repeat([]byte{fill}, ed25519.SeedSize))
		if err != nil {
			r.tb.Fatal(err)
		}
		return s
	}
	var err error
	if r.signer, err = signing.NewSigner(seed(nkeys.PrefixByteServer, 1)); err != nil {
		r.tb.Fatal(err)
	}
	now := time.Now()
	r.ring, err = keyring.New(1, now.Add(-time.Hour), now.Add(time.Hour), []keyring.Key{{
		ID: r.signer.KeyID(), Alg: keyring.AlgEd25519, Role: keyring.RoleBroker, Principal: "n1", NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
	}})
	if err != nil {
		r.tb.Fatal(err)
	}
	rootSeed := seed(nkeys.PrefixByteOperator, 9)
	if r.doc, err = r.ring.Sign(rootSeed); err != nil {
		r.tb.Fatal(err)
	}
	pair, err := nkeys.FromSeed(rootSeed)
	if err != nil {
		r.tb.Fatal(err)
	}
	if r.root, err = pair.PublicKey(); err != nil {
		r.tb.Fatal(err)
	}
}

func (r *rig) start() {
	r.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	var err error
	r.server, err = embed.Start(ctx, embed.Config{StoreDir: r.dir, ServerName: "n1", Tenants: []embed.TenantAccount{{Name: system, MaxBytes: 1 << 30}, {Name: "shop", MaxBytes: 1 << 30}}})
	if err != nil {
		r.tb.Fatal(err)
	}
	if r.store, err = store.Open(ctx, store.Config{Internal: store.Internal(r.server)}); err != nil {
		r.tb.Fatal(err)
	}
}

func (r *rig) end() {
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	_ = r.store.Close() // never fails
	if err := r.server.Shutdown(ctx); err != nil {
		r.tb.Error(err)
	}
}

func (r *rig) js(account string) jetstream.JetStream {
	r.tb.Helper()
	nc, err := r.store.Conn(account)
	if err != nil {
		r.tb.Fatal(err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		r.tb.Fatal(err)
	}
	return js
}

func (r *rig) makeStreams(perSubject int64) {
	r.tb.Helper()
	r.makeStream(system, jetstream.StreamConfig{Name: StreamAudit, Subjects: []string{"audit.>"}})
	r.makeStream(system, jetstream.StreamConfig{Name: StreamLog, Subjects: []string{"log.>"}, MaxMsgsPerSubject: perSubject})
	r.makeStream("shop", jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}, DenyDelete: !r.loose, DenyPurge: !r.loose})
	// Of an account without streams the server removes the folders at its leisure, also when
	// one is being made there: a test that makes ORDERS anew needs a second stream.
	r.makeStream("shop", jetstream.StreamConfig{Name: "OTHER", Subjects: []string{"other"}})
}

func (r *rig) makeStream(account string, cfg jetstream.StreamConfig) {
	r.tb.Helper()
	cfg.MaxBytes = 256 << 20
	if _, err := r.js(account).CreateStream(r.tb.Context(), cfg); err != nil {
		r.tb.Fatal(err)
	}
}

// conn is the connection of an account as it is now: the rig may have been restarted.
func (r *rig) conn(account string) (*nats.Conn, error) { return r.store.Conn(account) }

func (r *rig) config() Config {
	return Config{
		Cluster: "test", Upstream: r.server, Tenant: r.conn, System: func() (*nats.Conn, error) { return r.conn(system) },
		Leads:  func(string, string) bool { return r.leads.Load() },
		Signer: func() *signing.Signer { return r.signer }, Ring: func() *keyring.Ring { return r.ring }, RingDocument: func() []byte { return r.doc },
		Follow: r.follow, Log: zerolog.New(zerolog.NewTestWriter(r.tb)),
	}
}

// fileFollower is integrity.Follower as a log takes it.
type fileFollower struct{ *integrity.Follower }

func (f fileFollower) Next(r *Record) (bool, error) {
	var m integrity.Stored
	ok, err := f.Follower.Next(&m)
	*r = Record(m)
	return ok, err
}

func (r *rig) follow(account, stream string, from uint64) (Follower, error) {
	f, err := integrity.Follow(r.dir, nil, account, stream, from)
	return fileFollower{f}, err
}

var orders = Source{Tenant: "shop", Account: "shop", Stream: "ORDERS"}

// serve starts a service that keeps the log of ORDERS until stop.
func (r *rig) serve(change func(*Config)) (s *Service, stop func()) {
	r.tb.Helper()
	cfg := r.config()
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		r.tb.Fatal(err)
	}
	s.Set([]Source{orders})
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		ctx, cancel := context.WithTimeout(context.Background(), patient)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			r.tb.Error(err)
		}
	}
	r.tb.Cleanup(stop)
	return s, stop
}

// publish stores attested events with the numbers of [from, to).
func (r *rig) publish(from, to int) {
	r.tb.Helper()
	js := r.js("shop")
	for i := from; i < to; i++ {
		if _, err := js.PublishMsgAsync(r.event(i)); err != nil {
			r.tb.Fatal(err)
		}
	}
	select {
	case <-js.PublishAsyncComplete():
	case <-time.After(patient):
		r.tb.Fatal("publishes were not acknowledged")
	}
}

func (r *rig) event(i int) *nats.Msg {
	const subject = "orders.created"
	e := &cloudevent.Event{
		ID: fmt.Appendf(nil, "event-%d", i), Source: []byte("/shop/checkout"), Type: []byte("order.created"), ContentType: []byte("application/json"),
		Data: fmt.Appendf(nil, `{"order":%06d,"note":"%0200d"}`, i, i),
	}
	e.SetExt([]byte(wire.AttrAuthID), []byte("shop/checkout"))
	e.SetExt([]byte(wire.AttrAuthType), []byte(wire.DefaultAuthType))
	e.SetExt([]byte(wire.AttrRecordedTime), signing.AppendRecordedTime(nil, time.Now()))
	var b signing.Batch
	if b.Add(e, []byte(subject)) != 0 {
		r.tb.Fatal("the event was not taken")
	}
	b.Sign(r.signer)
	e.SetExt([]byte(wire.AttrAttestation), b.AppendAttestation(nil, 0))
	signing.Shorten(e)
	block := append([]byte(wire.HeaderLine), cloudevent.AppendHeaders(nil, e)...)
	m := nats.NewMsg(subject)
	var h wire.Headers
	if err := h.Parse(append(block, "\r\n"...)); err != nil {
		r.tb.Fatal(err)
	}
	for _, l := range h.All() {
		m.Header[string(l.Name)] = []string{string(l.Value)}
	}
	m.Data = e.Data
	return m
}

// eventually waits until ok, which says what it saw.
func eventually(tb testing.TB, what string, ok func() (bool, string)) {
	tb.Helper()
	seen := ""
	for end := time.Now().Add(patient); time.Now().Before(end); <-time.After(20 * time.Millisecond) {
		var done bool
		if done, seen = ok(); done {
			return
		}
	}
	tb.Fatalf("%s: did not come: %s", what, seen)
}

// awaitSize waits until the log has n leaves in a checkpoint.
func awaitSize(tb testing.TB, s *Service, n int64) *tlog.Note {
	tb.Helper()
	var note *tlog.Note
	eventually(tb, fmt.Sprintf("%d leaves", n), func() (bool, string) {
		var err error
		note, _, err = s.Last(tb.Context(), "shop", "ORDERS")
		if err != nil {
			return false, err.Error()
		}
		return note.Size >= n, fmt.Sprintf("%d leaves, state %+v", note.Size, s.States())
	})
	return note
}

// awaitState waits until the writer of s says that it has logged n events.
func awaitState(tb testing.TB, s *Service, n int64) {
	tb.Helper()
	eventually(tb, fmt.Sprintf("a writer with %d leaves", n), func() (bool, string) {
		st := s.States()[0]
		return st.Leading && st.Size == n, fmt.Sprintf("%+v", st)
	})
}

// verifyAll walks the whole log as the command does.
func verifyAll(tb testing.TB, s *Service, at *tlog.Checkpoint) *Result {
	tb.Helper()
	var sum Result
	for from := at.First; ; {
		r, err := s.Verify(tb.Context(), "shop", "ORDERS", at, from)
		if err != nil {
			tb.Fatal(err)
		}
		sum.Compared += r.Compared
		sum.Absent += r.Absent
		sum.Aged += r.Aged
		sum.Unproven += r.Unproven
		if r.Doubt != "" {
			sum.Doubt = r.Doubt
		}
		if sum.Finding, from = r.Finding, r.Next; r.Finding != nil || from >= at.Next() {
			return &sum
		}
	}
}

func blockFile(tb testing.TB, dir string) string {
	tb.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "jetstream", "shop", "streams", "ORDERS", "msgs", "*.blk"))
	if err != nil || len(files) != 1 {
		tb.Fatalf("blocks of ORDERS: %v, %v", files, err)
	}
	return files[0]
}

func readFile(tb testing.TB, name string) []byte {
	tb.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

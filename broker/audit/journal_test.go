package audit

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
	"github.com/rs/zerolog"

	"github.com/signetbus/signet/broker/internal/embed"
	"github.com/signetbus/signet/broker/store"
	"github.com/signetbus/signet/internal/auditlog"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
)

// journalRig is a JetStream with a stream AUDIT, and the key of node n1.
type journalRig struct {
	t      *testing.T
	nc     *nats.Conn
	js     jetstream.JetStream
	stream Stream
	signer *signing.Signer
	ring   *keyring.Ring
	dir    string
}

func newJournalRig(t *testing.T, maxBytes int64) *journalRig {
	t.Helper()
	r := &journalRig{t: t, dir: filepath.Join(t.TempDir(), "audit")}
	server, err := embed.Start(t.Context(), embed.Config{StoreDir: t.TempDir(), ServerName: "test", Tenants: []embed.TenantAccount{{Name: "signet", MaxBytes: 64 << 20}}})
	r.must(err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
	r.nc, err = store.Internal(server)("signet")
	r.must(err)
	t.Cleanup(r.nc.Close)
	r.js, err = jetstream.New(r.nc)
	r.must(err)
	_, err = r.js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: "AUDIT", Subjects: []string{"audit.>"}, Discard: jetstream.DiscardNew, MaxBytes: maxBytes, Storage: jetstream.FileStorage,
	})
	r.must(err)
	r.stream = NewStream(func() (*nats.Conn, error) { return r.nc, nil }, "AUDIT", func(context.Context) error { return nil })
	r.signer, r.ring = nodeKey(t)
	return r
}

func nodeKey(t testing.TB) (*signing.Signer, *keyring.Ring) {
	t.Helper()
	kp, err := nkeys.CreateServer()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := kp.Seed()
	if err != nil {
		t.Fatal(err)
	}
	s, err := signing.NewSigner(seed)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	ring, err := keyring.New(1, now.Add(-time.Hour), now.Add(time.Hour), []keyring.Key{{
		ID: s.KeyID(), Alg: keyring.AlgEd25519, Role: keyring.RoleBroker, Principal: "n1", NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
	}})
	if err != nil {
		t.Fatal(err)
	}
	return s, ring
}

func (r *journalRig) must(err error) {
	if err != nil {
		r.t.Helper()
		r.t.Fatal(err)
	}
}

func (r *journalRig) open(change func(*JournalConfig)) *Journal {
	r.t.Helper()
	cfg := JournalConfig{Node: "n1", Dir: r.dir, Signer: func() *signing.Signer { return r.signer }, Log: zerolog.Nop()}
	if change != nil {
		change(&cfg)
	}
	j, err := OpenJournal(cfg)
	r.must(err)
	r.t.Cleanup(func() { r.close(j) })
	return j
}

func (r *journalRig) close(j *Journal) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	r.must(errors.Join(j.Detach(ctx), j.Shutdown(ctx)))
}

// until polls for a condition that something in the background brings about.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	end := time.Now().Add(30 * time.Second)
	for !cond() {
		if time.Now().After(end) {
			t.Fatal("not within 30 s: " + what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// settle waits until the stream has everything.
func (r *journalRig) settle(j *Journal) {
	r.t.Helper()
	until(r.t, "everything is in the stream", func() bool {
		return j.Left() == 0
	})
}

// read verifies a tenant's trail and returns its records.
func (r *journalRig) read(tenant string, heads ...[]byte) ([]auditlog.Record, *auditlog.Report) {
	r.t.Helper()
	v := auditlog.NewVerifier(tenant, r.ring)
	for _, h := range heads {
		r.must(v.Expect(h))
	}
	var out []auditlog.Record
	for seq := uint64(1); ; {
		m, err := r.stream.Next(r.t.Context(), PrefixRecord+tenant+".>", seq)
		r.must(err)
		if m == nil {
			return out, v.Finish()
		}
		v.Batch(m.Seq, m.Data)
		b, err := auditlog.ParseBatch(m.Data)
		r.must(err)
		out, seq = append(out, b.Records...), m.Seq+1
	}
}

func login(n int) auditlog.Entry {
	return auditlog.Entry{Tenant: "shop", Kind: auditlog.KindLogin, Outcome: auditlog.OutcomeOK, Who: "shop/a", Detail: fmt.Sprint("number ", n)}
}

// numbers counts the logins of records by their number.
func numbers(records []auditlog.Record) map[string]int {
	out := map[string]int{}
	for i := range records {
		if records[i].Kind == auditlog.KindLogin {
			out[records[i].Detail]++
		}
	}
	return out
}

func (r *journalRig) exactly(records []auditlog.Record, n int) {
	r.t.Helper()
	got := numbers(records)
	for i := range n {
		if c := got[fmt.Sprint("number ", i)]; c != 1 {
			r.t.Errorf("record %d is there %d times", i, c)
		}
	}
	if len(got) != n {
		r.t.Errorf("%d different records, want %d", len(got), n)
	}
}

func TestJournalStoresAndGoesOn(t *testing.T) {
	r := newJournalRig(t, 16<<20)
	for run := range 3 {
		j := r.open(nil)
		if run > 0 {
			j.Note(login(run * 100)) // before the stream is there
		}
		j.Attach(r.stream)
		for i := range 100 {
			if i == 0 && run > 0 {
				continue
			}
			j.Note(login(run*100 + i))
		}
		r.must(j.Keep(t.Context(), auditlog.Entry{Kind: auditlog.KindBroker, Outcome: auditlog.OutcomeOK}))
		r.settle(j)
		if s := j.Stats(); s.Lost != 0 || s.Stored == 0 {
			t.Fatalf("%+v", s)
		}
		r.close(j)
	}
	records, report := r.read("shop")
	if !report.OK || len(report.Chains) != 1 {
		t.Fatalf("%+v", report)
	}
	r.exactly(records, 300)
	if records, report := r.read(auditlog.SystemTenant); !report.OK || len(records) != 4 {
		t.Fatalf("%d records, %+v", len(records), report)
	}
}

// lossy loses the answer of every other publish, before or after it was stored.
type lossy struct {
	Stream
	mu sync.Mutex
	n  int
}

func (l *lossy) Publish(ctx context.Context, subject string, expect uint64, data []byte) (uint64, error) {
	l.mu.Lock()
	l.n++
	n := l.n
	l.mu.Unlock()
	if n%4 == 1 {
		return 0, errors.New("not sent")
	}
	seq, err := l.Stream.Publish(ctx, subject, expect, data)
	if n%4 == 3 {
		return 0, errors.New("the answer is lost")
	}
	return seq, err
}

func TestJournalRepeatsNothing(t *testing.T) {
	r := newJournalRig(t, 16<<20)
	j := r.open(nil)
	j.Attach(&lossy{Stream: r.stream})
	for i := range 12 {
		r.must(j.Keep(t.Context(), login(i)))
	}
	r.settle(j)
	records, report := r.read("shop")
	if !report.OK {
		t.Fatalf("%+v", report.Faults)
	}
	r.exactly(records, 12)
	if j.counted.repeats.Load() == 0 {
		t.Error("no answer was lost: the test tests nothing")
	}
}

// never takes nothing.
type never struct{ Stream }

func (never) Publish(context.Context, string, uint64, []byte) (uint64, error) {
	return 0, errors.New("no quorum")
}

func TestSpoolThatIsFull(t *testing.T) {
	r := newJournalRig(t, 16<<20)
	small := func(cfg *JournalConfig) { cfg.Spool = MinSpoolBytes }
	j := r.open(small)
	j.Attach(never{r.stream})
	r.must(j.Keep(t.Context(), login(0)))
	flood := func() {
		for range 2000 {
			j.Note(auditlog.Entry{Tenant: "shop", Kind: auditlog.KindRefusal, Outcome: auditlog.OutcomeRefused, Detail: strings.Repeat("x", 400)})
		}
	}
	until(t, "refusals are lost", func() bool {
		flood()
		return j.Stats().Lost > 0 && j.fullFor(&auditlog.Entry{Kind: auditlog.KindRefusal})
	})
	// A flood of refusals leaves room for what must be on record.
	r.must(j.Keep(t.Context(), login(1)))
	kept := 2
	var err error
	for ; err == nil; kept++ {
		e := login(kept)
		e.Rule = strings.Repeat("y", 500)
		err = j.Keep(t.Context(), e)
	}
	kept--
	if !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "no quorum") || j.Room() == nil || j.Health() == nil {
		t.Fatalf("%v, health %v", err, j.Health())
	}
	if s := j.Stats(); s.SpoolBytes > 2*MinSpoolBytes {
		t.Errorf("the spool has %d bytes, the limit is %d", s.SpoolBytes, s.SpoolLimit)
	}
	r.must(j.Detach(t.Context()))
	j.Attach(r.stream)
	r.settle(j)
	until(t, "there is room again", func() bool { return j.Room() == nil && j.Health() == nil })
	r.must(j.Keep(t.Context(), login(kept)))
	r.settle(j)
	records, report := r.read("shop")
	if !report.OK {
		t.Fatalf("%+v", report.Faults)
	}
	r.exactly(records, kept+1)
	var lost uint64
	for i := range records {
		if records[i].Kind == auditlog.KindLost {
			lost += records[i].Count
		}
	}
	if want := j.Stats().Lost; lost != want || want == 0 {
		t.Errorf("the trail tells of %d lost records, there were %d", lost, want)
	}
}

// A stream that is full takes nothing, and throws nothing away.
func TestStreamThatIsFull(t *testing.T) {
	r := newJournalRig(t, 64<<10)
	j := r.open(nil)
	j.Attach(r.stream)
	n := 0
	until(t, "the stream is full", func() bool {
		r.must(j.Keep(t.Context(), login(n)))
		n++
		return j.trouble.Load() != nil
	})
	if j.Health() == nil {
		t.Error("nobody is told")
	}
	_, err := r.js.UpdateStream(t.Context(), jetstream.StreamConfig{Name: "AUDIT", Subjects: []string{"audit.>"}, Discard: jetstream.DiscardNew, MaxBytes: 16 << 20, Storage: jetstream.FileStorage})
	r.must(err)
	r.settle(j)
	records, report := r.read("shop")
	if !report.OK {
		t.Fatalf("%+v", report.Faults)
	}
	r.exactly(records, n)
}

func TestTornSpool(t *testing.T) {
	r := newJournalRig(t, 16<<20)
	j := r.open(nil)
	j.Attach(r.stream)
	r.must(j.Keep(t.Context(), login(0)))
	r.close(j)
	segments, err := filepath.Glob(filepath.Join(r.dir, "*"+segmentSuffix))
	if err != nil || len(segments) != 1 {
		t.Fatal(segments, err)
	}
	f, err := os.OpenFile(segments[0], os.O_APPEND|os.O_WRONLY, 0)
	r.must(err)
	_, err = f.Write([]byte{0, 0, 1, 0, 1, 2, 3, 4, 'x'})
	r.must(errors.Join(err, f.Close()))
	j = r.open(nil)
	j.Attach(r.stream)
	r.must(j.Keep(t.Context(), login(1)))
	r.settle(j)
	records, report := r.read("shop")
	if !report.OK {
		t.Fatalf("%+v", report.Faults)
	}
	r.exactly(records, 2)
	if records, _ := r.read(auditlog.SystemTenant); len(records) < 2 || !strings.Contains(records[1].Detail, "9 bytes") {
		t.Errorf("the trail does not tell of it: %+v", records)
	}
}

// seal is what the node says of its chain when it is asked.
func (r *journalRig) seal(j *Journal) []byte {
	r.t.Helper()
	at, ok := j.Position("shop")
	if !ok {
		r.t.Fatal("no position")
	}
	h := auditlog.Head{Tenant: "shop", Node: "n1", Time: time.Now(), Seal: true, Chains: []auditlog.Position{at}}
	doc, err := h.Sign(r.signer)
	r.must(err)
	return doc
}

func (r *journalRig) deleteLast() {
	r.t.Helper()
	m, err := r.stream.Last(r.t.Context(), RecordSubject("shop", "n1"))
	r.must(err)
	s, err := r.js.Stream(r.t.Context(), "AUDIT")
	r.must(err)
	r.must(s.SecureDeleteMsg(r.t.Context(), m.Seq))
}

func TestStreamThatWasCut(t *testing.T) {
	r := newJournalRig(t, 16<<20)
	j := r.open(nil)
	j.Attach(r.stream)
	for i := range 3 {
		r.must(j.Keep(t.Context(), login(i)))
		r.settle(j)
	}
	r.close(j)
	r.deleteLast()
	// What the spool still has is put back.
	j = r.open(nil)
	j.Attach(r.stream)
	r.settle(j)
	if records, report := r.read("shop", r.seal(j)); !report.OK {
		t.Fatalf("%+v", report.Faults)
	} else {
		r.exactly(records, 3)
	}
	// What it has not, is missed: by the node, and by who asks it.
	r.must(j.spool.forget(j))
	r.close(j)
	r.deleteLast()
	j = r.open(nil)
	j.Attach(r.stream)
	until(t, "the node raises an alarm", func() bool { return j.Health() != nil })
	_, report := r.read("shop", r.seal(j))
	if report.OK || report.Faults[0].What != auditlog.FaultTruncated || report.Faults[0].Seq != 4 {
		t.Fatalf("%+v", report.Faults)
	}
	r.must(j.Keep(t.Context(), login(9)))
	r.settle(j)
	_, report = r.read("shop")
	if report.OK || report.Faults[0].What != auditlog.FaultDeleted || report.Faults[0].Seq != 4 {
		t.Fatalf("%+v", report.Faults)
	}
}

// forget drops what the stream has, as a full segment is dropped.
func (s *spool) forget(j *Journal) error {
	s.mu.Lock()
	s.limit = 1
	s.mu.Unlock()
	j.mu.Lock()
	stored := j.storedLocked()
	j.mu.Unlock()
	return s.drop("n1", stored)
}

func TestNodeThatLostItsState(t *testing.T) {
	r := newJournalRig(t, 16<<20)
	j := r.open(nil)
	j.Attach(r.stream)
	r.must(j.Keep(t.Context(), login(0)))
	r.settle(j)
	end, _ := j.Position("shop")
	r.close(j)
	r.must(os.RemoveAll(r.dir))
	j = r.open(nil)
	j.Attach(r.stream)
	r.must(j.Keep(t.Context(), login(1)))
	r.settle(j)
	records, report := r.read("shop")
	if !report.OK || len(report.Chains) != 2 || report.Chains[1].After != auditlog.RefOf(end) {
		t.Fatalf("%+v", report)
	}
	r.exactly(records, 2)
}

// An older copy of the state folder was put back: nothing is lost and no number is
// given out twice.
func TestNodeWithAnOlderState(t *testing.T) {
	r := newJournalRig(t, 16<<20)
	older := filepath.Join(t.TempDir(), "older")
	j := r.open(nil)
	j.Attach(r.stream)
	r.must(j.Keep(t.Context(), login(0)))
	r.settle(j)
	r.close(j)
	r.must(os.CopyFS(older, os.DirFS(r.dir)))
	j = r.open(nil)
	j.Attach(r.stream)
	r.must(j.Keep(t.Context(), login(1)))
	r.settle(j)
	r.close(j)
	r.must(os.RemoveAll(r.dir))
	r.must(os.CopyFS(r.dir, os.DirFS(older)))
	j = r.open(nil)
	r.must(j.Keep(t.Context(), login(2))) // on the old chain, before the stream is there
	j.Attach(r.stream)
	r.must(j.Keep(t.Context(), login(3)))
	r.settle(j)
	records, report := r.read("shop")
	if !report.OK || len(report.Chains) != 2 {
		t.Fatalf("%+v", report)
	}
	got := numbers(records)
	for i := range 4 {
		if got[fmt.Sprint("number ", i)] == 0 {
			t.Errorf("record %d is lost", i)
		}
	}
}

// With the help of TestMain this test binary is the process that is killed.
const childEnv = "SIGNET_AUDIT_TEST_CHILD"

// keepUntilKilled keeps records without a stream and says so for each.
func keepUntilKilled(dir string) {
	kp, _ := nkeys.CreateServer()
	seed, _ := kp.Seed()
	signer, err := signing.NewSigner(seed)
	if err != nil {
		panic(err)
	}
	fmt.Fprintln(os.Stdout, string(seed))
	j, err := OpenJournal(JournalConfig{Node: "n1", Dir: dir, Signer: func() *signing.Signer { return signer }, Log: zerolog.Nop()})
	if err != nil {
		panic(err)
	}
	_ = publisher{j, emptyStream{}}.open(context.Background(), "shop", "")
	for i := 0; ; i++ {
		if err := j.Keep(context.Background(), login(i)); err != nil {
			panic(err)
		}
		fmt.Fprintln(os.Stdout, "kept")
	}
}

type emptyStream struct{ Stream }

func (emptyStream) Last(context.Context, string) (*Message, error) { return nil, nil }

func TestKilledWithRecordsInTheSpool(t *testing.T) {
	r := newJournalRig(t, 16<<20)
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+r.dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	r.must(err)
	r.must(cmd.Start())
	lines := bufio.NewScanner(out)
	lines.Scan()
	r.signer, err = signing.NewSigner([]byte(lines.Text()))
	r.must(err)
	now := time.Now()
	r.ring, err = keyring.New(1, now.Add(-time.Hour), now.Add(time.Hour), []keyring.Key{{
		ID: r.signer.KeyID(), Alg: keyring.AlgEd25519, Role: keyring.RoleBroker, Principal: "n1", NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
	}})
	r.must(err)
	kept := 0
	for lines.Scan() && kept < 40 {
		kept++
	}
	r.must(cmd.Process.Kill())
	for lines.Scan() {
		kept++
	}
	_ = cmd.Wait() // it was killed
	j := r.open(nil)
	j.Attach(r.stream)
	r.settle(j)
	records, report := r.read("shop")
	if !report.OK {
		t.Fatalf("%+v", report.Faults)
	}
	n := len(numbers(records))
	if n < kept {
		t.Errorf("%d records were kept, %d are there", kept, n)
	}
	r.exactly(records, n)
	t.Logf("%d records kept before the kill, %d in the trail", kept, n)
}

func TestSpoolFolderThatIsNotReadable(t *testing.T) {
	r := newJournalRig(t, 16<<20)
	r.must(os.MkdirAll(r.dir, 0o700))
	r.must(os.WriteFile(filepath.Join(r.dir, chainsFile), []byte("{"), 0o600))
	_, err := OpenJournal(JournalConfig{Node: "n1", Dir: r.dir, Signer: func() *signing.Signer { return r.signer }})
	if !errors.Is(err, ErrSpool) || !strings.Contains(err.Error(), "move the folder away") {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(filepath.Join(r.dir, "x")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

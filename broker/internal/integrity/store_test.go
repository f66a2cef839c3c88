package integrity

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	systemAccount = "$SYS"
	// small is a limit with which nats-server makes blocks of 32,000 bytes.
	small = 127_000
	// messages of 100 bytes fill three blocks and a half of them.
	messages = 650
)

// startServer runs a plain nats-server on dir.
func startServer(tb testing.TB, dir string, change ...func(*server.Options)) *server.Server {
	tb.Helper()
	o := &server.Options{
		ServerName: "n0", Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: dir, NoSigs: true, NoLog: true, SyncAlways: false,
		DisableJetStreamBanner: true,
	}
	for _, c := range change {
		c(o)
	}
	s, err := server.NewServer(o)
	if err != nil {
		tb.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(20 * time.Second) {
		tb.Fatal("the server is not ready")
	}
	tb.Cleanup(func() { stopServer(s) })
	return s
}

func stopServer(s *server.Server) {
	s.Shutdown()
	s.WaitForShutdown()
}

func jet(tb testing.TB, s *server.Server) (*nats.Conn, jetstream.JetStream) {
	tb.Helper()
	nc, err := nats.Connect(s.ClientURL())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(nc.Close)
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(512))
	if err != nil {
		tb.Fatal(err)
	}
	return nc, js
}

// appendOnlyConfig is what Signet declares for a stream of events.
func appendOnlyConfig(name string, replicas int) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: name, Subjects: []string{name + ".>"}, MaxBytes: small, Replicas: replicas, Discard: jetstream.DiscardNew,
		DenyDelete: true, DenyPurge: true, AllowDirect: true,
	}
}

// body is the message of a sequence: it can be told apart from any other.
func body(seq uint64, size int) []byte {
	b := make([]byte, size)
	r := rand.New(rand.NewPCG(seq, 7))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	binary.BigEndian.PutUint64(b, seq)
	return b
}

func fill(tb testing.TB, js jetstream.JetStream, subject string, from, to uint64, size int) {
	tb.Helper()
	var acks []jetstream.PubAckFuture
	for seq := from; seq <= to; seq++ {
		f, err := js.PublishMsgAsync(&nats.Msg{Subject: subject, Header: nats.Header{"Ce-Id": {fmt.Sprint(seq)}}, Data: body(seq, size)}, jetstream.WithStallWait(30*time.Second))
		if err != nil {
			tb.Fatal(err)
		}
		acks = append(acks, f)
	}
	select {
	case <-js.PublishAsyncComplete():
	case <-time.After(60 * time.Second):
		tb.Fatal("publishes are not answered")
	}
	for _, f := range acks {
		select {
		case <-f.Ok():
		case err := <-f.Err():
			tb.Fatal(err)
		}
	}
}

// served reads a stream through the server and returns which of the messages 1 to n it
// serves as they were written.
func served(tb testing.TB, js jetstream.JetStream, stream string, n uint64) (good uint64) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 30*time.Second)
	defer cancel()
	st, err := js.Stream(ctx, stream)
	if err != nil {
		tb.Logf("no stream: %v", err)
		return 0
	}
	cons, err := st.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{})
	if err != nil {
		tb.Logf("no consumer: %v", err)
		return 0
	}
	info := st.CachedInfo()
	if info.State.Msgs == 0 {
		return 0
	}
	seen := map[uint64]bool{}
	for empty := 0; ; {
		batch, err := cons.Fetch(int(min(500, n-uint64(len(seen)))), jetstream.FetchMaxWait(2*time.Second))
		if err != nil {
			tb.Logf("no batch behind %d messages: %v", len(seen), err)
			return uint64(len(seen))
		}
		got := 0
		for m := range batch.Messages() {
			got++
			seq := binary.BigEndian.Uint64(m.Data())
			if md, err := m.Metadata(); err == nil && md.Sequence.Stream == seq && string(m.Data()) == string(body(seq, len(m.Data()))) {
				seen[seq] = true
			}
		}
		if got == 0 {
			tb.Logf("an empty batch behind %d messages of %d: %v", len(seen), info.State.Msgs, batch.Error())
			empty++ // a machine that is busy answers late
		}
		if empty == 3 || uint64(len(seen)) >= n {
			return uint64(len(seen))
		}
	}
}

func copyStore(tb testing.TB, from string) string {
	tb.Helper()
	to := tb.TempDir()
	err := filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if d.IsDir() {
			return os.MkdirAll(target, 0o700)
		}
		fi, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a running server has renamed it meanwhile
		}
		if err != nil {
			return err
		}
		in, err := os.Open(p)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		defer in.Close()
		out, err := os.Create(target)
		if err != nil {
			return err
		}
		if _, err := io.Copy(out, in); err != nil {
			return err
		}
		if err := out.Close(); err != nil {
			return err
		}
		return os.Chtimes(target, fi.ModTime(), fi.ModTime())
	})
	if err != nil {
		tb.Fatal(err)
	}
	return to
}

func mustCheck(tb testing.TB, o Options) *Report {
	tb.Helper()
	if o.SystemAccount == "" {
		o.SystemAccount = systemAccount
	}
	rep, err := Check(tb.Context(), o)
	if err != nil {
		tb.Fatal(err)
	}
	return rep
}

func replica(tb testing.TB, rep *Report, id string) *Replica {
	tb.Helper()
	for i := range rep.Replicas {
		if rep.Replicas[i].ID() == id {
			return &rep.Replicas[i]
		}
	}
	tb.Fatalf("the report has no %s", id)
	return nil
}

// mustLedger opens the ledger of a store.
func mustLedger(tb testing.TB, dir string) *Ledger {
	tb.Helper()
	l, err := OpenLedger(filepath.Join(dir, "integrity"))
	if err != nil {
		tb.Fatal(err)
	}
	return l
}

func seal(tb testing.TB, dir string, o Options) {
	tb.Helper()
	l := mustLedger(tb, dir)
	if err := l.Running(); err != nil {
		tb.Fatal(err)
	}
	o.Dir, o.SystemAccount = dir, systemAccount
	rep, err := l.Seal(tb.Context(), o)
	if err != nil {
		tb.Fatal(err)
	}
	if d := rep.Damaged(); len(d) > 0 {
		tb.Fatalf("a sound store is damaged: %v", d[0].Damage)
	}
}

package broker_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/broker/store"
	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/internal/auditlog"
	"github.com/signetbus/signet/signing/keyring"
	"github.com/signetbus/signet/signing/tlog"
)

// againstOutside is againstLog with a checkpoint of the log of the heads that was kept
// elsewhere; nil: none was.
func againstOutside(t *testing.T, b *brokertest.Broker, kept *tlog.Note) *auditlog.Report {
	t.Helper()
	c := b.Client("auditor")
	defer c.Close()
	api := admin.New(c)
	ring := must(keyring.Parse(must(api.KeyRing(within(t)))(t).Document, b.State.Root, time.Now()))(t)
	since := ""
	if kept != nil {
		since = string(kept.Bytes())
	}
	said := must(admin.LoggedHeadsSince(within(t), api, false, since))(t)
	seals := must(api.AuditSeals(within(t), false))(t)
	v := auditlog.NewVerifier(said.Tenant, ring)
	check(t, v.Expect([]byte(seals.Seal)))
	if kept != nil {
		check(t, auditlog.ExpectLog(v, kept, said.Checkpoint, said.Consistency))
	}
	for _, line := range said.Logged {
		check(t, v.ExpectLogged([]byte(line)))
	}
	if said.Finding != "" {
		v.LogFault(said.Finding)
	}
	if said.Unlogged != "" {
		v.Open("", said.Unlogged)
	}
	for after := uint64(0); ; {
		page := must(api.AuditBatches(within(t), false, after))(t)
		if len(page.Batches) == 0 {
			return v.Finish()
		}
		for _, m := range page.Batches {
			v.Batch(m.Seq, m.Data)
			after = m.Seq
		}
	}
}

// keptCheckpoint is what a sink off the cluster has of the log of the heads.
func keptCheckpoint(t *testing.T, b *brokertest.Broker) *tlog.Note {
	t.Helper()
	c := b.Client("auditor")
	defer c.Close()
	said := must(admin.LoggedHeads(within(t), admin.New(c), false))(t)
	note := must(tlog.ParseNote([]byte(said.Checkpoint)))(t)
	if note.Size == 0 {
		t.Fatalf("an empty log: %s", said.Checkpoint)
	}
	return note
}

// TestLogOfHeadsTakenAway: who has the whole disk cuts the trail and takes the heads, their
// log and all copies of its checkpoints away with it. A new log begins, which knows nothing
// of that; a checkpoint that was kept elsewhere shows it.
func TestLogOfHeadsTakenAway(t *testing.T) {
	b := newAudited(t)
	for range 3 {
		connect(t, b, "writer").Close()
		published(t, b)
	}
	kept := keptCheckpoint(t, b)
	if r := againstOutside(t, b, kept); !r.Proved() {
		t.Fatalf("before: %+v", r)
	}
	connect(t, b, "writer").Close()
	published(t, b)
	if r := againstOutside(t, b, kept); !r.Proved() {
		t.Fatalf("the log grew: %+v", r)
	}
	stop(t, b)
	emptied(t, b)
	withServer(t, b, func(js jetstream.JetStream) {
		for _, name := range []string{store.StreamAudit, store.StreamHeads, store.StreamLog} {
			cfg := must(js.Stream(within(t), name))(t).CachedInfo().Config
			check(t, js.DeleteStream(within(t), name))
			must(js.CreateStream(within(t), cfg))(t)
		}
	})
	b = restartAudited(t, b, accept(store.StreamAudit, store.StreamHeads, store.StreamLog))
	connect(t, b, "writer").Close()
	published(t, b)
	if r := againstOutside(t, b, nil); !r.Proved() {
		t.Logf("without the checkpoint: %+v", r)
	}
	r := againstOutside(t, b, kept)
	if r.Proved() || !slices.ContainsFunc(r.Open, func(o auditlog.Open) bool { return strings.Contains(o.Why, "begun anew") }) {
		t.Fatalf("nobody saw it: %+v", r)
	}
}

// TestLogOfHeadsPutBack: the whole store and what the node remembers are put back to an
// earlier state, and the broker goes on: the same log has another history.
func TestLogOfHeadsPutBack(t *testing.T) {
	b := newAudited(t)
	connect(t, b, "writer").Close()
	published(t, b)
	stop(t, b)
	dir, earlier := filepath.Join(b.State.Dir, "store"), filepath.Join(t.TempDir(), "store")
	check(t, os.CopyFS(earlier, os.DirFS(dir)))
	b = restartAudited(t, b)
	for range 3 {
		connect(t, b, "writer").Close()
		published(t, b)
	}
	kept := keptCheckpoint(t, b)
	stop(t, b)
	check(t, os.RemoveAll(dir))
	check(t, os.CopyFS(dir, os.DirFS(earlier)))
	b = restartAudited(t, b, accept(store.StreamAudit, store.StreamHeads, store.StreamLog))
	connect(t, b, "writer").Close()
	published(t, b)
	if r := againstOutside(t, b, kept); keptCheckpoint(t, b).Size < kept.Size && (r.OK || !faultOf(r, auditlog.FaultLog, "does not begin with")) {
		t.Fatalf("while the log is shorter: %+v", r)
	}
	for keptCheckpoint(t, b).Size <= kept.Size {
		connect(t, b, "writer").Close()
		published(t, b)
	}
	if r := againstOutside(t, b, nil); !r.Proved() {
		t.Logf("without the checkpoint: %+v", r)
	}
	if r := againstOutside(t, b, kept); r.OK || !faultOf(r, auditlog.FaultLog, "does not begin with") {
		t.Fatalf("nobody saw it: %+v", r)
	}
}

// TestHeadsAgedOutByForce: who has the disk lets all heads age out at once, and takes the
// signed record of when they were stored. Nobody can tell then whether they were old enough:
// the trail is not proved by what is left.
func TestHeadsAgedOutByForce(t *testing.T) {
	b := newAudited(t)
	for range 3 {
		connect(t, b, "writer").Close()
		published(t, b)
	}
	stop(t, b)
	withServer(t, b, func(js jetstream.JetStream) {
		heads := must(js.Stream(within(t), store.StreamHeads))(t).CachedInfo().Config
		short := heads
		short.MaxAge, short.Duplicates = time.Second, time.Second
		must(js.UpdateStream(within(t), short))(t)
		eventually(t, "all heads are gone", func() bool {
			return must(must(js.Stream(within(t), store.StreamHeads))(t).Info(within(t)))(t).State.Msgs == 0
		})
		must(js.UpdateStream(within(t), heads))(t)
		without(t, js, store.StreamLog, ".ages")
	})
	b = restartAudited(t, b, accept(store.StreamHeads, store.StreamLog))
	connect(t, b, "writer").Close()
	settled(t, b)
	var r *auditlog.Report
	eventually(t, "it is seen", func() bool {
		r = againstOutside(t, b, nil)
		return !r.Proved()
	})
	t.Logf("%+v %+v", r.Open, r.Faults)
	if !slices.ContainsFunc(r.Open, func(o auditlog.Open) bool { return strings.Contains(o.Why, "are gone") }) && r.OK {
		t.Errorf("%+v", r)
	}
}

// without makes a stream anew without the messages on subjects with an ending.
func without(t *testing.T, js jetstream.JetStream, name, ending string) {
	t.Helper()
	s := must(js.Stream(within(t), name))(t)
	cfg := s.CachedInfo().Config
	var left []*nats.Msg
	for seq := s.CachedInfo().State.FirstSeq; seq <= s.CachedInfo().State.LastSeq; seq++ {
		m, err := s.GetMsg(within(t), seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		check(t, err)
		if !strings.HasSuffix(m.Subject, ending) {
			left = append(left, &nats.Msg{Subject: m.Subject, Data: m.Data})
		}
	}
	if len(left) == 0 {
		t.Fatalf("nothing is left of %s", name)
	}
	check(t, js.DeleteStream(within(t), name))
	must(js.CreateStream(within(t), cfg))(t)
	for _, m := range left {
		must(js.PublishMsg(within(t), m))(t)
	}
}

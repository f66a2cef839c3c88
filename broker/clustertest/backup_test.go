package clustertest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
)

const backupPolicy = policy + `  - {name: keeper, identities: [{nkey: {{nkey "keeper"}}}], admin: [backup]}
`

// successor is the folder of a new cluster with the keys and credentials of another,
// and nothing stored: what one that lost all its disks starts from.
func successor(t *testing.T, of *brokertest.Cluster) string {
	t.Helper()
	dir, from := t.TempDir(), filepath.Dir(filepath.Dir(of.Nodes[0].State.Dir))
	subs := []string{"keys", "creds", "ca"}
	for _, n := range of.Nodes {
		subs = append(subs, filepath.Join("nodes", filepath.Base(n.State.Dir), "keys"))
	}
	for _, sub := range subs {
		err := filepath.WalkDir(filepath.Join(from, sub), func(path string, d os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(from, path)
			if err != nil {
				return err
			}
			if d.IsDir() {
				return os.MkdirAll(filepath.Join(dir, rel), 0o700)
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, rel), data, 0o600)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func (r *rig) restore(file []byte, change ...func(*admin.RestoreRequest)) (*admin.RestoreReport, error) {
	r.Helper()
	q := admin.RestoreRequest{Bytes: int64(len(file)), Tenant: "shop"}
	for _, c := range change {
		c(&q)
	}
	c := r.Client("keeper")
	defer c.Close()
	return admin.New(c).Restore(r.ctx, bytes.NewReader(file), q)
}

// TestClusterBackup: a tenant is backed up while events flow, and restored into a new
// cluster with the same keys, where every event verifies at every node and has three
// copies. Another cluster refuses it and says why.
func TestClusterBackup(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	rigOf := func(o brokertest.Options) *rig {
		o.Policy = backupPolicy
		r := &rig{T: t, ctx: ctx, Cluster: brokertest.NewCluster(t, 3, o)}
		r.api = admin.New(r.Client("root"))
		r.await("healthy", healthy)
		return r
	}
	r := rigOf(brokertest.Options{})
	r.publish(200)

	// Numbers go on while the backup is made; it has a prefix of them.
	load, stop := context.WithCancel(ctx)
	defer stop()
	ended, writer := make(chan error, 1), r.Client("writer")
	var acked atomic.Int64
	acked.Store(int64(r.sent))
	go func() {
		for load.Err() == nil {
			n := acked.Load()
			_, err := writer.Publish(ctx, "orders.a", &client.Event{ID: fmt.Sprintf("load %d", n), Data: fmt.Append(nil, n)})
			if err != nil {
				ended <- err
				return
			}
			acked.Store(n + 1)
		}
		ended <- nil
	}()
	var buf bytes.Buffer
	keeper := r.Client("keeper")
	if n, err := admin.New(keeper).Backup(ctx, "shop", &buf); err != nil || n != int64(buf.Len()) {
		t.Fatalf("%d of %d bytes: %v", n, buf.Len(), err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("publish beside a backup: %v", err)
	}
	file := buf.Bytes()

	next := rigOf(brokertest.Options{Dir: successor(t, r.Cluster)})
	report, err := next.restore(file)
	if err != nil {
		t.Fatal(err)
	}
	saved := 0
	for _, s := range report.Streams {
		if s.Name == "ORDERS" {
			saved = int(s.Messages)
		}
	}
	if saved < r.sent || saved > int(acked.Load())+1 {
		t.Errorf("%d events were saved, %d were acknowledged before and %d after: %+v", saved, r.sent, acked.Load(), report)
	}
	for _, st := range next.await("whole", healthy).Streams {
		if len(st.Replicas) != 3 || !st.Whole {
			t.Errorf("%+v", st)
		}
	}
	for _, n := range next.Nodes {
		brokertest.CheckNumbers(ctx, t, n.Client("reader"), "orders.>", saved)
	}
	next.sent = saved
	next.publish(10)
	next.read()

	if _, err := next.restore(file); !errors.Is(err, client.ErrConflict) {
		t.Errorf("restored over events: %v", err)
	}
	other := rigOf(brokertest.Options{})
	_, err = other.restore(file)
	var refused *client.Error
	if !errors.As(err, &refused) || refused.Name != "BackupRefused" || !strings.Contains(refused.Detail, "a snapshot from another cluster") {
		t.Errorf("another root: %v", err)
	}
	if _, err = other.restore(file, func(q *admin.RestoreRequest) { q.TrustRoot = r.Nodes[0].State.Root }); !errors.Is(err, client.ErrBadSignature) {
		t.Errorf("with a root whose keys nobody here knows: %v", err)
	}
	if st := other.await("untouched", healthy); len(st.Streams) != len(next.await("whole", healthy).Streams) {
		t.Errorf("%+v", st.Streams)
	}
	other.publish(5) // nothing stayed
	other.read()
}

package clustertest_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/broker/ca"
	"github.com/signetbus/signet/client"
)

// rotations is how often TestRotations changes everything:
// go test ./broker/clustertest -run TestRotations -rotations 50
var rotations = flag.Int("rotations", 4, "changes of leaf and authority in TestRotations")

const rotationPolicy = `
tenant: shop
streams:
  - {name: ORDERS, subjects: [orders.>], maxBytes: 256MiB}
principals:
  - {name: plain, identities: [{nkey: {{nkey "plain"}}}], publish: [orders.>]}
  - {name: enrolled, identities: [{nkey: {{nkey "enrolled"}}}, {spiffe: spiffe://shop.example/enrolled}], publish: [orders.>]}
`

// turning is a cluster whose authority changes.
type turning struct {
	*testing.T
	*brokertest.Cluster
	ctx        context.Context
	dir        string // of the authority
	cert       string // of the client that enrols
	sent, cuts atomic.Int64
	failed     atomic.Int64
}

// TestRotations: on three nodes the certificates of clients, servers and routes and the
// authority of them all change, again and again, while two clients publish, one of which
// comes in by a certificate of that authority. Not one publish fails, every event is
// there, and a node that starts then finds the others.
func TestRotations(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), limit+time.Duration(*rotations)*time.Minute)
	defer cancel()
	r := &turning{T: t, ctx: ctx, dir: t.TempDir()}
	dir := filepath.Join(r.dir, "ca")
	r.Cluster = brokertest.NewCluster(t, 3, brokertest.Options{Policy: rotationPolicy, Dir: r.dir, Change: func(c *broker.Config) {
		c.Authentication.Certificates = []broker.AuthorityConfig{{
			CA: filepath.Join(dir, ca.CACertFile), Tenants: []broker.AuthorityTenant{{Name: "shop", SPIFFE: []string{"spiffe://shop.example/*"}}},
		}}
		c.Authentication.Enrolment = broker.EnrolmentConfig{CA: dir, Lifetime: time.Hour}
	}})
	r.dir = dir
	clientDir := t.TempDir()
	r.cert = filepath.Join(clientDir, "c.pem")
	enrol := client.WithEnrolment(r.cert, filepath.Join(clientDir, "c.key"), "spiffe://shop.example/enrolled")
	first := r.Client("enrolled", enrol)
	r.until("the client has a certificate", func() bool { return r.byFirst(r.cert) })
	first.Close()
	patient := []client.Option{client.WithTimeout(time.Minute), client.WithReconnectWait(20 * time.Millisecond)}
	enrolled := r.Client("enrolled", append(patient, enrol, client.WithStateHandler(func(on bool, _ error) {
		if !on {
			r.cuts.Add(1)
		}
	}))...)
	stop := make(chan struct{})
	var load sync.WaitGroup
	for name, c := range map[string]*client.Client{"plain": r.Client("plain", patient...), "enrolled": enrolled} {
		load.Go(func() { r.publish(name, c, stop) })
	}
	for i := range *rotations {
		r.rotate(i, enrolled)
	}
	close(stop)
	load.Wait()
	r.Stop(2)
	r.Start(2)
	st := r.Nodes[2].Client("plain")
	if _, err := st.Publish(ctx, "orders.last", client.NewEvent("order", []byte("1"))); err != nil {
		t.Errorf("a node that starts with the last certificates: %v", err)
	}
	t.Logf("%d changes of leaf and authority on 3 nodes, %d publishes, %d failed, %d sessions ended with their authority", *rotations, r.sent.Load(), r.failed.Load(), r.cuts.Load())
}

func (r *turning) publish(name string, c *client.Client, stop chan struct{}) {
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		default:
		}
		if _, err := c.Publish(r.ctx, "orders."+name, client.NewEvent("order", fmt.Append(nil, i))); err != nil {
			r.failed.Add(1)
			r.Errorf("%s: publish %d: %v", name, i, err)
			return
		}
		r.sent.Add(1)
	}
}

// rotate changes the authority once, and with it every certificate.
func (r *turning) rotate(i int, enrolled *client.Client) {
	r.step(ca.Prepare)
	r.step(ca.Switch)
	authority, err := ca.Load(r.dir)
	r.check(err)
	for _, n := range r.Nodes {
		cfg, err := broker.LoadConfig(n.State.Config, nil)
		r.check(err)
		r.check(authority.Renew(cfg.TLS.Certificate, cfg.TLS.Key, 0))
		r.check(authority.Renew(cfg.Cluster.TLS.Certificate, cfg.Cluster.TLS.Key, 0))
		r.check(n.Reload(r.ctx))
	}
	r.until("the client has a certificate of the new authority", func() bool { return r.byFirst(r.cert) })
	before := r.sent.Load()
	r.step(ca.Retire)
	r.until("the session of the old authority ends, and publishing goes on", func() bool {
		return r.cuts.Load() > int64(i) && enrolled.Connected() && r.sent.Load() > before+10
	})
}

// step takes the authority one step further, and brings the list of authorities to all
// nodes.
func (r *turning) step(do func(string) error) {
	r.Helper()
	r.check(do(r.dir))
	text, err := os.ReadFile(filepath.Join(r.dir, ca.CACertFile))
	r.check(err)
	for _, n := range r.Nodes {
		cfg, err := broker.LoadConfig(n.State.Config, nil)
		r.check(err)
		next := cfg.Cluster.TLS.CA + ".new" // nobody may see half a file
		r.check(os.WriteFile(next, text, 0o600))
		r.check(os.Rename(next, cfg.Cluster.TLS.CA))
		r.check(n.Reload(r.ctx))
	}
}

// byFirst reports whether the certificate is of the authority that issues.
func (r *turning) byFirst(file string) bool {
	all, err := ca.Authorities(r.dir)
	if err != nil {
		return false
	}
	leaf, err := ca.ReadCertificate(file)
	return err == nil && leaf.CheckSignatureFrom(all[0]) == nil
}

func (r *turning) check(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func (r *turning) until(what string, ok func() bool) {
	r.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if r.failed.Load() > 0 {
			r.FailNow()
		}
		select {
		case <-tick.C:
		case <-r.ctx.Done():
			r.Fatal("not in time: ", what)
		}
	}
}

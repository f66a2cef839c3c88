package clustertest_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/broker/ca"
	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/internal/attack"
)

// TestClusterRefusesAttacks: signet attack against three nodes: nothing succeeds, everything
// is judged, and the policy is everywhere as it was. Which node is attacked is told by the
// context; the throw-away tenants are new to all of them.
func TestClusterRefusesAttacks(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	top := t.TempDir()
	r := &rig{T: t, ctx: ctx, Cluster: brokertest.NewCluster(t, 3, brokertest.Options{
		Dir: top,
		Change: func(c *broker.Config) { // so that certificates are asked for, and issued
			c.Authentication.Certificates = []broker.AuthorityConfig{{
				CA: filepath.Join(top, "ca", ca.CACertFile), Tenants: []broker.AuthorityTenant{{Name: "shop", SPIFFE: []string{"spiffe://shop.example/*"}}},
			}}
			c.Authentication.Enrolment.CA = filepath.Join(top, "ca")
		},
		Policy: strings.Replace(policy, "admin: [cluster, status, policy, refusals]", "admin: [cluster, status, policy, refusals, keys]", 1),
	})}
	r.api = admin.New(r.Client("root"))
	r.await("healthy", healthy)
	st := r.Nodes[0].State
	dir := t.TempDir()
	seed, report := filepath.Join(dir, "policy.seed"), filepath.Join(dir, "report.json")
	root := filepath.Join(top, "keys", "root.seed")
	for _, args := range [][]string{
		{"keys", "issue", "--role", "policy", "--principal", "shop/root", "--out", seed, "--keyring", st.Keyring, "--root-seed", root},
		{"keys", "push", st.Keyring},
	} {
		if out, err := r.signet(args...); err != nil {
			t.Fatalf("signet %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	before := r.Nodes[0].Policy().Digest()
	out, err := r.signet("attack", "--against", "ops", "--key", seed, "--policy", st.Policy, "--report", report, "--timeout", "30s")
	if err != nil {
		t.Errorf("exit code %d", exit(t, err))
	}
	t.Log(out)
	if n := len(attack.List()); !strings.Contains(out, fmt.Sprintf(", %d refused", n)) {
		t.Errorf("not all of %d were refused", n)
	}
	for i, n := range r.Nodes {
		if got := n.Policy().Digest(); got != before {
			t.Errorf("node %d: policy %s, was %s", i+1, got, before)
		}
	}
	out, err = r.signet("verify", "--attack-report", report)
	if want := "VERIFIED: a run by shop/root, verdict refused"; err != nil || !strings.Contains(out, want) {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := os.Stat(report); err != nil {
		t.Error(err)
	}
	r.publish(10)
	r.read()

	// The streams of the throw-away tenants stay, without an account in the policy: a node
	// that starts again does not mind, and the next run finds them.
	r.Stop(2)
	r.Start(2)
	r.await("healthy after a restart", healthy)
	if out, err := r.signet("attack", "--against", "ops", "--key", seed, "--policy", st.Policy, "--only", "1,14,28,51,64", "--timeout", "30s"); err != nil {
		t.Errorf("the second run: exit code %d\n%s", exit(t, err), out)
	}
	r.await("healthy after a second run", healthy)
	r.publish(10)
	r.read()
}

package broker_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/broker/ca"
)

// TestNodeRenewsByAnother: a node without an authority has its certificates renewed by
// the one that has it, when it is time and not before; without one nothing happens.
func TestNodeRenewsByAnother(t *testing.T) {
	dir := t.TempDir()
	c := brokertest.NewCluster(t, 3, brokertest.Options{Policy: clusterPolicy, Dir: dir, Change: func(cfg *broker.Config) {
		quickDrain(cfg)
		if cfg.Name != "n1" {
			return
		}
		cfg.Authentication.Certificates = []broker.AuthorityConfig{{
			CA: filepath.Join(dir, "ca", ca.CACertFile), Tenants: []broker.AuthorityTenant{{Name: "shop", SPIFFE: []string{"spiffe://shop.example/*"}}},
		}}
		cfg.Authentication.Enrolment.CA = filepath.Join(dir, "ca")
	}})
	serials := func(i int) (out [2]string) {
		cfg := must(broker.LoadConfig(c.Nodes[i].State.Config, nil))(t)
		for n, file := range []string{cfg.TLS.Certificate, cfg.Cluster.TLS.Certificate} {
			out[n] = must(ca.ReadCertificate(file))(t).SerialNumber.String()
		}
		return out
	}
	ends := func(i int) string { return metric(t, c.Nodes[i], "signet_route_certificate_expiry_seconds") }
	before, until := serials(1), ends(1)
	metric(t, c.Nodes[1], "signet_route_ca_expiry_seconds")
	broker.RenewOwn(within(t), c.Nodes[1].Broker, time.Now())
	if got := serials(1); got != before {
		t.Error("renewed before it was time")
	}
	late := time.Now().Add(ca.DefaultServerTTL - 30*24*time.Hour)
	broker.RenewOwn(within(t), c.Nodes[1].Broker, late)
	after := serials(1)
	if after[0] == before[0] || after[1] == before[1] {
		t.Errorf("before %v, after %v", before, after)
	}
	if got := ends(1); got == until {
		t.Errorf("the metric says that the certificate of the routes still ends at %s", got)
	}
	// A node gets its own, and only with its own key.
	n1, n2, n3 := c.Nodes[0].Broker, c.Nodes[1].Broker, c.Nodes[2].Broker
	cfg := must(broker.LoadConfig(c.Nodes[1].State.Config, nil))(t)
	route := cfg.Cluster.TLS
	check(t, broker.AskAs(n1, n2, "n2", route.Certificate, route.Key))
	for name, err := range map[string]error{
		"another node's certificate": broker.AskAs(n1, n3, "n3", route.Certificate, route.Key),
		"another node's token":       broker.AskAs(n1, n3, "n2", route.Certificate, route.Key),
		"no node":                    broker.AskAs(n1, n3, "n9", route.Certificate, route.Key),
		"a node without authority":   broker.AskAs(n3, n2, "n2", route.Certificate, route.Key),
	} {
		if err == nil {
			t.Errorf("%s: granted", name)
		}
	}
	// A restart goes by what was granted: the others take it.
	c.Stop(1)
	c.Start(1)
	// The first node is the authority, and asks nobody.
	first := serials(0)
	broker.RenewOwn(within(t), c.Nodes[0].Broker, late)
	if got := serials(0); got[0] == first[0] || got[1] == first[1] {
		t.Error("the node with the authority did not renew its own")
	}
}

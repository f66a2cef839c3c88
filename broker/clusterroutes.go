package broker

import (
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/signetbus/signet/broker/ca"
	"github.com/signetbus/signet/broker/internal/embed"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
)

// clusterOptions returns what makes the embedded server a node; nil without a cluster.
func clusterOptions(b startup) (*embed.ClusterConfig, error) {
	c := b.cfg.Cluster
	if c == nil {
		return nil, nil //nolint:nilnil // a broker by itself is no fault
	}
	cert, err := ca.ServerTLS(c.TLS.Certificate, c.TLS.Key)
	if err != nil {
		return nil, err
	}
	cert.OnError(func(err error) {
		b.log.Error().Err(err).Msg("certificate of the routes not reloaded, the old one stays")
	})
	trust := func(node string) error { return trustNode(b.Broker, node) }
	authorities, err := ca.TrustFile(c.TLS.CA)
	if err != nil {
		return nil, err
	}
	authorities.OnError(func(err error) {
		b.log.Error().Err(err).Msg("authorities of the routes not reloaded, the old ones stay")
	})
	tls, err := cert.RouteConfig(authorities, c.Name, b.cfg.Name, trust)
	if err != nil {
		return nil, err
	}
	return &embed.ClusterConfig{
		Name: c.Name, Listen: c.Listen, Nodes: c.Nodes, TLS: tls, Trust: trust,
		Admit: func(node, token string, cert *x509.Certificate) error { return admitNode(b.Broker, node, token, cert) },
		Token: func() string { return signing.NodeToken(b.material.Load().shown, c.Name, b.cfg.Name) },
	}, nil
}

// trustNode says whether the keyring has a key of the node that is valid now. Both ends
// of a route ask, and the list of the nodes to dial: nats-server asks for tokens only
// where it is dialled.
func trustNode(b *Broker, node string) error {
	if b.cfg.Cluster.Nodes[node] == "" {
		return fmt.Errorf("broker: %q is not one of cluster.nodes", node)
	}
	now := time.Now()
	for _, k := range b.material.Load().ring.Keys() {
		if k.Role == keyring.RoleBroker && k.Principal == node && k.ValidAt(now) {
			return nil
		}
	}
	return fmt.Errorf("broker: the keyring here has no valid key of node %q", node)
}

// trustedNodes lists the nodes that trustNode trusts now.
func trustedNodes(b *Broker) []string {
	if b.nodes == nil {
		return nil
	}
	var out []string
	for name := range b.cfg.Cluster.Nodes {
		if trustNode(b, name) == nil {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// recheckNodes closes the routes to nodes whose keys have run out since the routes were
// judged last, and lets them be dialled whose keys have become valid.
func recheckNodes(b *Broker) {
	if b.nodes == nil {
		return
	}
	b.swap.Lock()
	defer b.swap.Unlock()
	now := trustedNodes(b)
	if slices.Equal(*b.nodes.trusted.Load(), now) || phase(b.phase.Load()) != phaseReady {
		return
	}
	if err := reloadRoutes(b, now); err != nil {
		b.log.Error().Err(err).Msg("the routes could not be judged anew")
	}
}

// reloadRoutes has the server judge tickets and routes anew. The caller holds b.swap.
func reloadRoutes(b *Broker, trusted []string) error {
	if err := b.server.Reload(); err != nil {
		return err
	}
	if b.nodes != nil {
		b.nodes.trusted.Store(&trusted)
	}
	return nil
}

// admitNode judges a node that wants a route to this one, which TLS has let through.
func admitNode(b *Broker, node, token string, cert *x509.Certificate) error {
	c := b.cfg.Cluster
	name, err := ca.NodeOf(cert, c.Name)
	switch {
	case err != nil:
		return err
	case name != node:
		return fmt.Errorf("broker: it says that it is node %q with the certificate of %q", node, name)
	}
	return signing.VerifyNodeToken(token, c.Name, node, b.material.Load().ring, time.Now())
}

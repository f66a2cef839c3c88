package ca

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"
)

// ErrNode: a certificate that is not one of a node of the cluster.
var ErrNode = errors.New("ca: not a certificate of a node of this cluster")

// NodeURI is the URI name in the certificate of a node. It tells routes apart from
// client certificates of the same authority, and one node from another.
func NodeURI(cluster, node string) string { return "spiffe://" + cluster + nodePath + node }

// nodePath starts the paths of nodes' names; no client gets one.
const nodePath = "/node/"

// IssueNode is IssueServer for the routes of a node: the certificate is good for
// both ends of a connection and carries NodeURI.
//
// Errors: as IssueServer.
func (a *Authority) IssueNode(certFile, keyFile, cluster, node string, hosts []string, ttl time.Duration) error {
	uri, err := url.Parse(NodeURI(cluster, node))
	if err != nil {
		return fmt.Errorf("%w: node %q of cluster %q: %w", ErrInvalid, node, cluster, err)
	}
	return a.issue(certFile, keyFile, hosts, ttl, func(c *x509.Certificate) {
		c.Subject.CommonName = "signet node " + node
		c.URIs = []*url.URL{uri}
		c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	})
}

// RouteConfig returns the configuration of both ends of a route: TLS 1.3, the
// certificate of r, and a certificate of a node of cluster demanded of the other
// side, issued by the authorities in trusted, which is read again when it changes. admit
// judges the node that the other certificate names, whichever side has dialled.
//
// Errors: ErrInvalid where r's certificate is not of node, or not by trusted.
func (r *Reloader) RouteConfig(trusted *Trusted, cluster, node string, admit func(node string) error) (*tls.Config, error) {
	leaf := r.current.Load().Leaf
	if name, err := NodeOf(leaf, cluster); err != nil || name != node {
		return nil, fmt.Errorf("%w: %s is not of node %q of cluster %q: it needs the URI name %s", ErrInvalid, r.certFile, node, cluster, NodeURI(cluster, node))
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: trusted.Roots().Pool, KeyUsages: []x509.ExtKeyUsage{usage}, Intermediates: r.intermediates()}); err != nil {
			return nil, fmt.Errorf("%w: %s would be refused by the other nodes: by the authorities in %s: %w", ErrInvalid, r.certFile, trusted.file, err)
		}
	}
	judge := func(cs tls.ConnectionState, host string, usage x509.ExtKeyUsage) error {
		if err := trusted.verify(cs, host, usage); err != nil {
			return err
		}
		name, err := NodeOf(cs.PeerCertificates[0], cluster)
		if err != nil {
			return err
		}
		return admit(name)
	}
	dialled := &tls.Config{
		MinVersion: tls.VersionTLS13, GetCertificate: r.GetCertificate, SessionTicketsDisabled: true,
		// Verified below, by the authorities of that moment: a pool in a tls.Config is for ever.
		ClientAuth: tls.RequireAnyClientCert,
		VerifyConnection: func(cs tls.ConnectionState) error {
			return judge(cs, "", x509.ExtKeyUsageClientAuth)
		},
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, GetCertificate: r.GetCertificate, SessionTicketsDisabled: true,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return r.GetCertificate(nil)
		},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return dialled, nil },
		ClientAuth:         tls.RequireAnyClientCert,
		InsecureSkipVerify: true, //nolint:gosec // replaced by VerifyConnection, which runs in any case
		VerifyConnection: func(cs tls.ConnectionState) error {
			// Of an address crypto/tls does not say which was dialled; what counts is the
			// node that the certificate names.
			return judge(cs, cs.ServerName, x509.ExtKeyUsageServerAuth)
		},
	}, nil
}

func (r *Reloader) intermediates() *x509.CertPool {
	pool := x509.NewCertPool()
	for _, der := range r.current.Load().Certificate[1:] {
		if c, err := x509.ParseCertificate(der); err == nil {
			pool.AddCert(c)
		}
	}
	return pool
}

// NodeOf returns which node of cluster the certificate is for.
//
// Errors: ErrNode.
func NodeOf(cert *x509.Certificate, cluster string) (node string, err error) {
	prefix := NodeURI(cluster, "")
	i := slices.IndexFunc(cert.URIs, func(u *url.URL) bool {
		s := u.String()
		return len(s) > len(prefix) && s[:len(prefix)] == prefix
	})
	if i < 0 {
		return "", fmt.Errorf("%w: %q has no URI name %s…", ErrNode, cert.Subject.CommonName, prefix)
	}
	return cert.URIs[i].String()[len(prefix):], nil
}

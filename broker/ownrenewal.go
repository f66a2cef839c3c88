package broker

import (
	"context"
	"crypto/x509"
	"errors"
	"slices"
	"time"

	"github.com/signetbus/signet/broker/ca"
)

// ownRenewal renews the certificates of this node, of the client port and of its routes,
// when two thirds of their life are over or another authority issues by now: with the
// authority that is here, else by another node that has it. Certificates of other
// authorities are left alone. The files are watched: they are in use soon. The zero value
// is ready. Not safe for concurrent use.
type ownRenewal struct{ next map[string]time.Time }

// run is called once a minute.
func (r *ownRenewal) run(ctx context.Context, b *Broker, now time.Time) {
	if r.next == nil {
		r.next = make(map[string]time.Time)
	}
	pairs := [][2]string{{b.cfg.TLS.Certificate, b.cfg.TLS.Key}}
	if c := b.cfg.Cluster; c != nil {
		pairs = append(pairs, [2]string{c.TLS.Certificate, c.TLS.Key})
	}
	for _, p := range pairs {
		if now.Before(r.next[p[0]]) {
			continue
		}
		renewed, err := renewPair(ctx, b, p[0], p[1], now)
		switch {
		case errors.Is(err, errNoAuthority):
			r.next[p[0]] = now.Add(24 * askAgain) // nobody is meant to; a warning comes when the end is near
		case err != nil:
			r.next[p[0]] = now.Add(askAgain)
			b.log.Error().Err(err).Str("certificate", p[0]).Msg("the certificate of this node could not be renewed: renew it by hand, signet ca renew")
		case renewed:
			b.log.Info().Str("certificate", p[0]).Msg("certificate of this node renewed")
		}
	}
}

// renewPair renews a pair of files if it is due.
func renewPair(ctx context.Context, b *Broker, certFile, keyFile string, now time.Time) (renewed bool, err error) {
	var authorities []*x509.Certificate
	e := b.material.Load().trust.enrolment
	switch {
	case e != nil:
		authorities, err = ca.Authorities(e.file)
	case b.nodes != nil:
		var roots *ca.Roots
		if roots, err = ca.LoadRoots(b.cfg.Cluster.TLS.CA); err == nil {
			authorities = roots.Certificates()
		}
	default:
		return false, nil
	}
	if err != nil {
		return false, err
	}
	chain, err := ca.ReadAll(certFile)
	if err != nil || !due(chain[0], authorities, now) {
		return false, err
	}
	if e != nil {
		return true, e.authority.Renew(certFile, keyFile, 0)
	}
	return true, askRenewal(ctx, b, certFile, keyFile)
}

// due reports whether a certificate is of one of the authorities, of which the first
// issues, and is to be renewed.
func due(leaf *x509.Certificate, authorities []*x509.Certificate, now time.Time) bool {
	by := slices.IndexFunc(authorities, func(c *x509.Certificate) bool { return leaf.CheckSignatureFrom(c) == nil })
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	return by > 0 || by == 0 && now.After(leaf.NotAfter.Add(-life/3))
}

package identity

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

// Authority vouches for the names in certificates that its roots have signed.
type Authority struct {
	Name    string         // for people: the file of its certificates
	Roots   *x509.CertPool // several while they change
	Tenants []Given
}

// Limits of what a client certificate may bring.
const (
	maxChain    = 8 // certificates, the leaf among them
	maxDNSNames = 16
	minRSABits  = 2048
	maxRSABits  = 8192 // of keys of issuers; crypto/tls has the same for certificates
)

// certificate checks the client certificate: its form, who signed it, and whether that
// authority may say so in the tenant of the principal that has the name.
func (t *Trust) certificate(set *policy.Set, c *Credentials) (Login, *wire.Refusal) {
	chain := c.TLS.PeerCertificates
	if len(chain) == 0 || len(chain) > maxChain {
		return Login{}, failed(fmt.Sprintf("the client sent %d certificates: send the leaf and its intermediates, at most %d", len(chain), maxChain))
	}
	names, err := leafNames(chain[0])
	if err != nil {
		return Login{}, failed("the client certificate: " + err.Error())
	}
	if t.nodePrefix != "" && strings.HasPrefix(names.list[0], t.nodePrefix) {
		return Login{}, failed("the certificate is that of a node of the cluster, which is no client: issue one for the workload")
	}
	vouchers, err := t.vouchers(chain, names)
	if err != nil {
		return Login{}, failed(err.Error())
	}
	// Only now is the policy asked: whoever has no certificate of an authority learns
	// nothing.
	p, name, refusal := names.principal(set)
	if refusal != nil {
		return Login{}, refusal
	}
	for _, v := range vouchers {
		if v.authority.gives(p.Tenant.Name, name, names.kind) {
			return Login{Principal: p, Method: MethodCertificate, Name: name, Until: v.until}, nil
		}
	}
	return Login{}, failed(fmt.Sprintf("the authority %s signed the certificate of %s, and authentication.certificates does not give it that name in tenant %s",
		vouchers[0].authority.Name, name, p.Tenant.Name))
}

// voucher is an authority that the certificate verifies with, and until when it does.
type voucher struct {
	authority *Authority
	until     time.Time
}

// vouchers verifies the chain with each authority that has a say about one of the
// names: for any other name a stranger cannot even cause a signature to be checked.
func (t *Trust) vouchers(chain []*x509.Certificate, names *certNames) ([]voucher, error) {
	var list []voucher
	var why error
	now, between := t.now(), x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	for i := range t.authorities {
		a := &t.authorities[i]
		// Without roots of its own, Verify would take those of the machine.
		if a.Roots == nil || !slices.ContainsFunc(names.list, func(n string) bool { return a.gives("", n, names.kind) }) {
			continue
		}
		paths, err := chain[0].Verify(x509.VerifyOptions{
			Roots: a.Roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		})
		if err != nil {
			why = err
			continue
		}
		list = append(list, voucher{a, lasts(paths)})
	}
	switch {
	case len(list) > 0:
		return list, nil
	case why != nil:
		return nil, fmt.Errorf("the certificate of %s does not verify: %w", strings.Join(names.list, ", "), why)
	}
	return nil, fmt.Errorf("no authority under authentication.certificates speaks for %s", strings.Join(names.list, ", "))
}

// lasts returns when the path that holds longest ends, which is when its first
// certificate does.
func lasts(paths [][]*x509.Certificate) time.Time {
	var best time.Time
	for _, path := range paths {
		end := path[0].NotAfter
		for _, c := range path[1:] {
			if c.NotAfter.Before(end) {
				end = c.NotAfter
			}
		}
		if end.After(best) {
			best = end
		}
	}
	return best
}

// certNames are the names of a workload in its certificate: one SPIFFE ID, or DNS names.
type certNames struct {
	list []string
	kind func(*Given) []string
	find func(*policy.Set, string) *policy.Principal
	word string
}

// principal returns the one principal that the names belong to, and by which name.
// Names that the policy does not have are passed over: a DNS certificate often
// has several spellings of one name.
func (n *certNames) principal(set *policy.Set) (p *policy.Principal, name string, refusal *wire.Refusal) {
	for _, s := range n.list {
		q := n.find(set, s)
		switch {
		case q == nil || q == p:
		case p != nil:
			return nil, "", failed(fmt.Sprintf("the names %s and %s of the certificate belong to %s and %s: one certificate is for one principal", name, s, p.FullName(), q.FullName()))
		default:
			p, name = q, s
		}
	}
	p, refusal = admissible(p, n.word, strings.Join(n.list, ", "))
	return p, name, refusal
}

// leafNames checks the form of a client certificate and returns its names. The subject
// (CN, DN) is never read.
func leafNames(leaf *x509.Certificate) (*certNames, error) {
	uris, dns, err := altNames(leaf)
	switch {
	case err != nil:
		return nil, err
	case leaf.IsCA:
		return nil, errors.New("it is a certificate authority, not a workload")
	case !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth):
		return nil, errors.New("it is not for clients: issue it with the extended key usage clientAuth")
	case leaf.KeyUsage != 0 && leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return nil, errors.New("its key may not sign: issue it with the key usage digitalSignature")
	}
	if err := strongKey(leaf.PublicKey); err != nil {
		return nil, err
	}
	switch {
	case len(uris) > 1:
		return nil, fmt.Errorf("it has %d URI names: exactly one, the SPIFFE ID, is wanted", len(uris))
	case len(uris) == 1:
		if _, _, err := wire.ParseSPIFFE(uris[0]); err != nil {
			return nil, fmt.Errorf("its URI name %.100q: %w", uris[0], err)
		}
		return &certNames{uris, spiffeNames, (*policy.Set).BySPIFFE, "SPIFFE ID"}, nil
	case len(dns) == 0 || len(dns) > maxDNSNames:
		return nil, fmt.Errorf("it has %d DNS names and no SPIFFE ID among its subject alternative names: one SPIFFE ID, or 1 to %d DNS names are wanted; the common name does not count", len(dns), maxDNSNames)
	}
	for _, name := range dns {
		if err := wire.CheckDNSName(name); err != nil {
			return nil, fmt.Errorf("its DNS name %.100q: %w", name, err)
		}
	}
	return &certNames{dns, dnsNames, (*policy.Set).ByDNS, "DNS name"}, nil
}

func strongKey(key any) error {
	switch k := key.(type) {
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return nil
	case *rsa.PublicKey:
		if k.N.BitLen() >= minRSABits {
			return nil
		}
		return fmt.Errorf("its RSA key has %d bits, at least %d are wanted", k.N.BitLen(), minRSABits)
	}
	return errors.New("its key is neither ECDSA, Ed25519 nor RSA")
}

package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/broker/ca"
	"github.com/signetbus/signet/signing"
)

// renewSubject is where a node asks another one, whose name follows, to renew its
// certificate.
const renewSubject = "SIGNET.RENEW."

// askAgain is how long a node waits after nobody has renewed its certificate.
const askAgain = time.Hour

// renewalAsk is what a node sends. The route has let it in already; the token says by its
// key, which the keyring may have revoked since, who it is.
type renewalAsk struct {
	Node    string      `json:"node"`
	Token   string      `json:"token"`
	Renewal *ca.Renewal `json:"renewal"`
}

// renewalAnswer has one of them.
type renewalAnswer struct {
	Chain []byte `json:"chain,omitempty"`
	Fault string `json:"fault,omitempty"`
}

var errNoAuthority = errors.New("no authority here (authentication.enrolment)")

// answerRenewal renews the certificate of another node, if this one has the authority.
func answerRenewal(n *nodes, m *nats.Msg) {
	select {
	case n.slots <- struct{}{}:
	default:
		return // it asks again
	}
	go func() {
		defer func() { <-n.slots }()
		var out renewalAnswer
		chain, err := grantRenewal(n.b, m.Data, time.Now())
		if out.Chain = chain; err != nil {
			out.Fault = err.Error()
		}
		data, err := json.Marshal(&out)
		if err == nil {
			err = m.Respond(data)
		}
		if err != nil && n.life.Err() == nil {
			n.b.log.Warn().Err(err).Msg("another node's renewal was not answered")
		}
	}()
}

func grantRenewal(b *Broker, body []byte, now time.Time) ([]byte, error) {
	m := b.material.Load()
	e, cluster := m.trust.enrolment, b.cfg.Cluster.Name
	if e == nil {
		return nil, errNoAuthority
	}
	var q renewalAsk
	if err := json.Unmarshal(body, &q); err != nil || q.Renewal == nil {
		return nil, errors.New("not a renewal")
	}
	if err := errors.Join(trustNode(b, q.Node), signing.VerifyNodeToken(q.Token, cluster, q.Node, m.ring, now)); err != nil {
		return nil, err
	}
	authorities, err := ca.Authorities(e.file)
	if err != nil {
		return nil, err
	}
	old, err := q.Renewal.Check(authorities, now)
	if err != nil {
		return nil, err
	}
	// The certificate of its routes is for that node alone; that of a client port names
	// hosts, and who has its key may have it again.
	if ca.Kind(old) == ca.KindNode {
		if name, err := ca.NodeOf(old, cluster); err != nil || name != q.Node {
			return nil, fmt.Errorf("%w: node %s asks with the certificate of %q", ca.ErrRenewal, q.Node, name)
		}
	}
	chain, err := e.authority.Grant(q.Renewal, old)
	if err != nil {
		return nil, err
	}
	b.trail.Event("certificate-issued", "", q.Node, "", ca.Kind(old)+" of node "+q.Node)
	return chain, nil
}

// askRenewal has another node renew a certificate of this one.
func askRenewal(ctx context.Context, b *Broker, certFile, keyFile string) error {
	renewal, key, err := ca.NewRenewal(certFile, keyFile)
	if err != nil {
		return err
	}
	m := b.material.Load()
	body, err := json.Marshal(&renewalAsk{Node: b.cfg.Name, Token: signing.NodeToken(m.shown, b.cfg.Cluster.Name, b.cfg.Name), Renewal: renewal})
	if err != nil {
		return err
	}
	fault := errNoAuthority
	for name := range b.cfg.Cluster.Nodes {
		if name == b.cfg.Name {
			continue
		}
		var answer renewalAnswer
		ask, cancel := context.WithTimeout(ctx, peerTimeout)
		msg, err := b.nodes.nc.RequestWithContext(ask, renewSubject+name, body)
		cancel()
		if err == nil {
			err = json.Unmarshal(msg.Data, &answer)
		}
		if answer.Fault == errNoAuthority.Error() {
			continue
		}
		if err == nil && answer.Fault != "" {
			err = errors.New(answer.Fault)
		}
		if err == nil {
			return ca.Keep(certFile, keyFile, answer.Chain, key)
		}
		fault = fmt.Errorf("node %s: %w", name, err)
	}
	return fault
}

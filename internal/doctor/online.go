package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/url"
	"time"

	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
)

// Node is one address of a broker.
type Node struct {
	Address string // tls://host:port
	// Connect opens a connection to this address alone.
	Connect func(ctx context.Context) (*client.Client, error)
	// TLS is what the certificate is checked with; nil leaves the chain unexamined.
	TLS *tls.Config
}

// Target is what Online examines. Nodes are the addresses of one broker or of the
// nodes of one cluster; all of them are asked.
type Target struct {
	Nodes []Node
	// Folder is what Offline found, to compare with; nil: nothing is compared.
	Folder *Folder
	// Sample, when positive, is how long to wait between two looks at the consumers.
	Sample time.Duration
	// Timeout bounds each connection and each request. Required.
	Timeout time.Duration
}

// online are the checks of what runs.
type online struct{ *findings }

// Online examines running brokers with the credential of the target's connections.
// Their clock and this one are compared; now tells this one.
func Online(ctx context.Context, target Target, t Thresholds, now func() time.Time) []Finding {
	var all findings
	f := online{&all}
	var nodes []nodeState
	seen := map[string]bool{} // names of nodes that have answered
	for _, n := range target.Nodes {
		nodes = append(nodes, f.node(ctx, &n, &target, t, now, seen))
	}
	f.compare(nodes, target.Folder)
	for i := range nodes {
		if nodes[i].status != nil {
			// Streams and consumers are those of the tenant, whichever node tells.
			f.streams(nodes[i].status, t)
			f.tenant(ctx, &target.Nodes[i], nodes[i].status, &target, t, now)
			break
		}
	}
	return all
}

// askAgain bounds the questions to a node for which others answer.
const askAgain = 16

// nodeState is what one node said. status is nil when it did not answer.
type nodeState struct {
	address     string
	status      *admin.Status
	ringVersion uint64
}

// node examines what belongs to one node.
func (f online) node(ctx context.Context, n *Node, target *Target, t Thresholds, now func() time.Time, seen map[string]bool) nodeState {
	out := nodeState{address: n.Address}
	f.chain(ctx, n, target.Timeout, t, now())
	c, err := connect(ctx, n, target.Timeout)
	if err != nil {
		f.add(idReach, n.Address, Critical, "is it running? signet status; the log of the broker says why not", "%s", oneLine(err))
		return out
	}
	defer c.Close()
	api := admin.New(c)
	began := now()
	ring, err := bounded(ctx, target.Timeout, api.KeyRing)
	if err != nil {
		f.refused(idReach, n.Address, "keys.ring", err)
		return out
	}
	took := now().Sub(began)
	f.add(idReach, n.Address, OK, "", "it answers")
	f.above(idRoundTrip, n.Address, took.Seconds(), "s", t.RoundTrip, "look at load and network; signet_barrier_waits_total, CPU", "one request took %s", took.Round(time.Microsecond))
	f.expiry(idRingInForce, n.Address, ring.Expires, now(), t, "put keys/root.seed back, then: signet init DIR", "keyring version "+number(ring.Version))
	out.ringVersion = ring.Version
	sent := now()
	s, err := bounded(ctx, target.Timeout, api.Status)
	// The group of nodes answers as one: another may answer for the one that was asked.
	for try := 1; err == nil && seen[s.Server.Name] && try < askAgain; try++ {
		sent = now()
		s, err = bounded(ctx, target.Timeout, api.Status)
	}
	if err != nil {
		f.refused(idHealth, n.Address, "status.get", err)
		return out
	}
	f.status(n.Address, s, t, sent, now(), target.Folder)
	seen[s.Server.Name], out.status = true, s
	return out
}

func connect(ctx context.Context, n *Node, timeout time.Duration) (*client.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return n.Connect(ctx)
}

func bounded[T any](ctx context.Context, timeout time.Duration, call func(context.Context) (*T, error)) (*T, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return call(ctx)
}

// refused notes that a request failed: without a grant nothing is known, anything else
// is a broker that does not answer.
func (f online) refused(id, object, request string, err error) {
	if errors.Is(err, client.ErrDenied) {
		f.add(id, object, Unknown, "use the context of a principal with admin: [status, refusals]", "%s: %s", request, oneLine(err))
		return
	}
	f.add(id, object, Critical, "signet status; the log of the broker says why", "%s: %s", request, oneLine(err))
}

// status judges what one node says of itself.
func (f online) status(address string, s *admin.Status, t Thresholds, sent, got time.Time, folder *Folder) {
	for _, h := range s.Health {
		if h.OK {
			f.add(idHealth, address+" "+h.Part, OK, "", "well")
			continue
		}
		f.add(idHealth, address+" "+h.Part, Critical, healthFix(h.Part), "%s", h.Detail)
	}
	for _, c := range s.Certificates {
		f.expiry(idCertUse, address, c.NotAfter, got, t, "signet init DIR on the broker (or whoever issues the certificate)", "certificate")
	}
	want := ""
	if folder != nil {
		want = string(folder.Config.Storage.Durability)
	}
	f.durabilityInForce(address, s.Server.Durability, want)
	if !s.Server.Time.IsZero() {
		// Between sent and got the broker read its clock: only what lies outside counts.
		off := max(sent.Sub(s.Server.Time), s.Server.Time.Sub(got), 0)
		f.above(idClockBroker, address, off.Seconds(), "s", t.Clock, "run a time service on both machines", "the clocks are %s apart, or less", off.Round(time.Millisecond))
	}
	f.above(idLettersDropped, address, float64(s.DeadLetters.Dropped), "", Pair{Warning: 1}, "signet refusals tail: who publishes so much that is refused? "+
		"signet_dead_letters_dropped_total has the causes", "%d dead letters were not stored since its start", s.DeadLetters.Dropped)
}

func (f online) durabilityInForce(address, have, want string) {
	switch {
	case have == "unsafe-lazy-sync":
		f.add(idDurabilityInForce, address, Critical, "remove storage.durability from its configuration and restart it", "unsafe-lazy-sync: a power cut loses acknowledged events")
	case want != "" && have != want:
		f.add(idDurabilityInForce, address, Warning, "put state on ext4, xfs or btrfs (Linux 5.8 or later), or restart after an edit", "%s, but the configuration says %s", have, want)
	default:
		f.add(idDurabilityInForce, address, OK, "", "%s", have)
	}
}

func healthFix(part string) string {
	switch part {
	case "reload":
		return "signet policy check FILE; repair it, and it is read again"
	case "keyring":
		return "put keys/root.seed back, then: signet init DIR"
	case "keyring-file":
		return "signet keys ring --out keyring.json, then signet keys push keyring.json; and find out who put the older file there"
	case "identities":
		return "give the names under authentication in its signet.yaml and restart it; or signet policy show --out DIR, take them out, signet policy apply DIR/policy.yaml --key SEED"
	case "storage", "server":
		return "df on its state folder; free space, then restart the broker"
	case "log":
		return "signet log ls; docs/operations.md, Logs of streams"
	case "durability":
		return "remove storage.durability from its configuration and restart it"
	}
	return "the log of the broker says more"
}

// chain looks at the certificates that the client port shows, as a new client would.
// A gate that speaks first (handshake: info) cannot be asked this way: then only
// CERT_004 tells.
func (f online) chain(ctx context.Context, n *Node, timeout time.Duration, t Thresholds, now time.Time) {
	u, err := url.Parse(n.Address)
	if n.TLS == nil || err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conf := n.TLS.Clone()
	conf.ServerName = u.Hostname()
	d := tls.Dialer{Config: conf}
	conn, err := d.DialContext(ctx, "tcp", u.Host)
	var invalid *tls.CertificateVerificationError
	switch {
	case errors.As(err, &invalid):
		f.add(idChain, n.Address, Critical, "signet context show: is the CA that of this broker? else renew the certificate: signet init DIR", "%s", oneLine(invalid.Err))
		return
	case err != nil:
		return // CONN_001 says whether it can be reached
	}
	defer conn.Close()
	chains := conn.(*tls.Conn).ConnectionState().VerifiedChains
	if len(chains) == 0 {
		return
	}
	var first *x509.Certificate
	for _, c := range chains[0] {
		if first == nil || c.NotAfter.Before(first.NotAfter) {
			first = c
		}
	}
	f.expiry(idChain, n.Address, first.NotAfter, now, t, "signet init DIR on the broker (or whoever issues the certificate)", "the first of the chain to expire, "+first.Subject.String()+",")
}

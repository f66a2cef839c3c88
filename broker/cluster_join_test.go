package broker_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nkeys"
	"github.com/rs/zerolog"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/broker/ca"
	"github.com/signetbus/signet/signing/keyring"
)

// logWatch keeps what was logged and wakes whoever waits for a text.
type logWatch struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{}
}

func newLogWatch() *logWatch { return &logWatch{more: make(chan struct{}, 1)} }

func (l *logWatch) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case l.more <- struct{}{}:
	default:
	}
	return l.text.Write(p)
}

func (l *logWatch) wait(ctx context.Context, t *testing.T, want string) {
	t.Helper()
	for {
		l.mu.Lock()
		has, all := strings.Contains(l.text.String(), want), l.text.String()
		l.mu.Unlock()
		if has {
			return
		}
		select {
		case <-l.more:
		case <-ctx.Done():
			t.Fatalf("nobody logged %q in\n%s", want, all)
		}
	}
}

// TestClusterRefusesStrangers: a node gets in with a certificate of the cluster's
// authority for its own name, a token that its key in the keyring signed, and a name
// that nobody else has. All else is refused, and the log says why.
func TestClusterRefusesStrangers(t *testing.T) {
	log := newLogWatch()
	c := brokertest.NewCluster(t, 3, brokertest.Options{Policy: clusterPolicy, Log: log})
	c.Stop(2)
	self := c.Nodes[2].State
	foreign := must(ca.Create(t.TempDir(), "another authority"))(t)
	ours := must(ca.Load(filepath.Join(filepath.Dir(filepath.Dir(self.Dir)), "ca")))(t)
	at := func(name string) string { return filepath.Join(self.Dir, name) }
	keep := map[string][]byte{}
	for _, name := range []string{"signet.yaml", "tls/route.pem", "tls/route.key", "ca/ca.pem", "keys/node.seed", "keys/keyring.json"} {
		keep[name] = must(os.ReadFile(at(name)))(t)
	}
	put := func(name string, data []byte) {
		t.Helper()
		if err := os.WriteFile(at(name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	edit := func(name, from, to string) {
		t.Helper()
		text := must(os.ReadFile(at(name)))(t)
		if !bytes.Contains(text, []byte(from)) {
			t.Fatalf("%s has no %q", name, from)
		}
		put(name, bytes.ReplaceAll(text, []byte(from), []byte(to)))
	}
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		name   string
		change func()
		logged string // by any node, while the stranger tries
		fails  string // else: what its own start says at once
	}{
		{name: "an authority of its own", change: func() {
			ok(foreign.IssueNode(at("tls/route.pem"), at("tls/route.key"), "test", "n3", nil, 0))
			put("ca/ca.pem", foreign.CertPEM())
		}, logged: "certificate signed by unknown authority"},
		{name: "the name of another cluster", change: func() { edit("signet.yaml", "name: test ", "name: lab ") }, fails: "spiffe://lab/node/n3"},
		{name: "a certificate of another cluster", change: func() {
			edit("signet.yaml", "name: test ", "name: lab ")
			ok(ours.IssueNode(at("tls/route.pem"), at("tls/route.key"), "lab", "n3", nil, 0))
		}, logged: "not a certificate of a node of this cluster"},
		{name: "the certificate of another node", change: func() {
			ok(ours.IssueNode(at("tls/route.pem"), at("tls/route.key"), "test", "n2", nil, 0))
		}, fails: "spiffe://test/node/n3"},
		{name: "the name of a node that is there", change: func() {
			edit("signet.yaml", "name: n3 ", "name: n1 ")
			ok(ours.IssueNode(at("tls/route.pem"), at("tls/route.key"), "test", "n1", nil, 0))
		}, logged: `a second node calls itself`},
		{name: "a key that the keyring does not know", change: func() {
			strangerRing(t, c)
		}, logged: "is not in the keyring here"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			defer func() {
				for name, data := range keep {
					put(name, data)
				}
			}()
			tc.change()
			cfg := must(broker.LoadConfig(self.Config, nil))(t)
			cfg.Ops.Listen, cfg.State = "127.0.0.1:0", t.TempDir()
			b := must(broker.New(cfg, "test", zerolog.New(log)))(t)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			ended := make(chan error, 1)
			go func() { ended <- b.Start(ctx) }()
			if tc.fails != "" {
				if err := <-ended; err == nil || !strings.Contains(err.Error(), tc.fails) {
					t.Errorf("start: %v, want %q", err, tc.fails)
				}
				return
			}
			log.wait(ctx, t, tc.logged)
			cancel()
			if err := <-ended; err == nil {
				t.Error("the stranger started")
			}
		})
	}
	// What was only kept out comes back by itself.
	c.Start(2)
}

// strangerRing gives node 3 another key, and a keyring with the others' keys that only
// it has.
func strangerRing(t *testing.T, c *brokertest.Cluster) {
	t.Helper()
	now := time.Now()
	node, root := must(nkeys.CreateServer())(t), must(nkeys.CreateOperator())(t)
	ids := []string{must(node.PublicKey())(t)}
	for _, n := range c.Nodes[:2] {
		ids = append(ids, must(must(nkeys.FromSeed(trimmed(t, n.State.NodeSeed)))(t).PublicKey())(t))
	}
	var keys []keyring.Key
	for i, name := range []string{"n3", "n1", "n2"} {
		keys = append(keys, keyring.Key{
			ID: ids[i], Alg: keyring.AlgEd25519, Role: keyring.RoleBroker, Principal: name,
			NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		})
	}
	ring := must(keyring.New(uint64(now.Unix())+1, now.Add(-time.Minute), now.Add(time.Hour), keys))(t)
	st := c.Nodes[2].State
	files := map[string][]byte{
		st.NodeSeed: must(node.Seed())(t), st.Keyring: must(ring.Sign(must(root.Seed())(t)))(t),
		st.Config: bytes.ReplaceAll(must(os.ReadFile(st.Config))(t), []byte(st.Root), []byte(must(root.PublicKey())(t))),
	}
	for name, data := range files {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRouteTakesNoPlainText: whoever does not bring a certificate is turned away
// before anything it says counts.
func TestRouteTakesNoPlainText(t *testing.T) {
	c := brokertest.NewCluster(t, 3, brokertest.Options{Policy: clusterPolicy})
	cfg := must(broker.LoadConfig(c.Nodes[0].State.Config, nil))(t)
	conn := must(net.Dial("tcp", cfg.Cluster.Listen))(t)
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "CONNECT {\"user\":\"n2\",\"pass\":\"x\",\"cluster\":\"test\"}\r\nRS+ shop >\r\nPING\r\n"); err != nil {
		t.Fatal(err)
	}
	// The end is a reset or an EOF: either is no answer.
	if rest, _ := io.ReadAll(conn); bytes.Contains(rest, []byte("PONG")) || bytes.Contains(rest, []byte("RS+")) || bytes.Contains(rest, []byte("INFO")) {
		t.Errorf("answered with %q", rest)
	}
}

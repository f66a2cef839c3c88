package doctor_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/broker/ca"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/internal/doctor"
)

const testTimeout = 10 * time.Second

// node asks b as a principal.
func node(b *brokertest.Broker, principal string) doctor.Node {
	return doctor.Node{Address: b.URL(), TLS: b.TLS(), Connect: func(ctx context.Context) (*client.Client, error) {
		return client.Connect(ctx, b.URL(), client.WithNkeySeedFile(b.Cred(principal)), client.WithTLSRoots(b.State.CA), client.WithRoot(b.State.Root))
	}}
}

func online(t *testing.T, b *brokertest.Broker, th doctor.Thresholds, later time.Duration) []doctor.Finding {
	t.Helper()
	target := doctor.Target{Nodes: []doctor.Node{node(b, "operator")}, Timeout: testTimeout}
	return doctor.Online(t.Context(), target, th, func() time.Time { return time.Now().Add(later) })
}

// calm are thresholds that a busy machine keeps.
func calm() doctor.Thresholds {
	th := doctor.DefaultThresholds()
	th.RoundTrip, th.Clock = doctor.Pair{Warning: 30, Critical: 60}, doctor.Pair{Warning: 30, Critical: 60}
	return th
}

func publish(t *testing.T, b *brokertest.Broker, n int, size int) (refused error) {
	t.Helper()
	c := b.Client("app")
	for range n {
		if _, err := c.Publish(t.Context(), "orders.x", client.NewEvent("x", fmt.Appendf(nil, `{"x":%q}`, strings.Repeat("x", size)))); err != nil {
			return err
		}
	}
	return nil
}

func consumer(t *testing.T, b *brokertest.Broker, wait time.Duration) jetstream.Consumer {
	t.Helper()
	js, err := jetstream.New(b.NATS("app"))
	must(t, err)
	c, err := js.CreateConsumer(t.Context(), "ORDERS", jetstream.ConsumerConfig{
		Durable: "billing", FilterSubject: "orders.>", AckPolicy: jetstream.AckExplicitPolicy, AckWait: wait,
	})
	must(t, err)
	return c
}

func TestOnlineHealthy(t *testing.T) {
	b := brokertest.New(t, brokertest.Options{})
	must(t, publish(t, b, 3, 10))
	c := consumer(t, b, time.Minute)
	batch, err := c.Fetch(3)
	must(t, err)
	for m := range batch.Messages() {
		must(t, m.DoubleAck(t.Context()))
	}
	list := online(t, b, calm(), 0)
	base := "http://" + b.OpsAddr().String()
	part, text := doctor.Scrape(t.Context(), base, testTimeout, calm(), time.Now())
	list = append(list, part...)
	for i := range list {
		if list[i].Severity != doctor.OK {
			t.Errorf("%+v", list[i])
		}
	}
	for _, id := range []string{
		"CONN_001", "CONN_002", "CERT_004", "CERT_005", "CLOCK_003", "KEYS_003", "KEYS_005", "HEALTH_001", "DURABILITY_002", "STREAM_001",
		"CONSUMER_001", "CONSUMER_002", "CONSUMER_003", "DLQ_001", "DLQ_002", "DLQ_003", "REFUSAL_001",
		"OPS_001", "OPS_002", "OPS_003", "RELOAD_001", "PANIC_001", "LIMIT_002", "STORE_001",
	} {
		want(t, list, id, doctor.OK)
	}
	if !strings.Contains(text, "signet_reload_ok 1") {
		t.Error("the metrics are not returned")
	}
	if r := doctor.NewReport(time.Now(), list, nil); r.Severity != doctor.OK {
		t.Errorf("the report is %s", r.Severity)
	}
}

func TestConsumersThatDoNotKeepUp(t *testing.T) {
	b := brokertest.New(t, brokertest.Options{})
	must(t, publish(t, b, 3, 10))
	c := consumer(t, b, 50*time.Millisecond)
	again := false // what is refused comes again, before or after the others
	for i := 0; i < 20 && !again; i++ {
		m, err := c.Next(jetstream.FetchMaxWait(testTimeout))
		must(t, err)
		meta, err := m.Metadata()
		must(t, err)
		if again = meta.NumDelivered > 1; !again {
			must(t, m.Nak())
		}
	}
	if !again {
		t.Fatal("nothing came again")
	}
	th := calm()
	th.Redelivered = doctor.Pair{Warning: 1, Critical: 100}
	list := online(t, b, th, 0)
	want(t, list, "CONSUMER_002", doctor.OK)
	want(t, list, "CONSUMER_003", doctor.Warning)
	want(t, list, "STREAM_002", doctor.OK)
	want(t, online(t, b, th, 20*time.Minute), "CONSUMER_002", doctor.Warning)
	want(t, online(t, b, th, 2*time.Hour), "CONSUMER_002", doctor.Critical)
	want(t, online(t, b, th, 6*24*time.Hour), "STREAM_002", doctor.Warning)
	want(t, online(t, b, th, 7*24*time.Hour), "STREAM_002", doctor.Critical)
	want(t, online(t, b, th, 7*24*time.Hour), "CLOCK_003", doctor.Critical)

	stop, done := make(chan struct{}), make(chan struct{})
	app := b.Client("app")
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				_, _ = app.Publish(context.Background(), "orders.x", client.NewEvent("x", []byte(`{}`)))
			}
		}
	}()
	target := doctor.Target{Nodes: []doctor.Node{node(b, "operator")}, Timeout: testTimeout, Sample: 2 * time.Second}
	list = doctor.Online(t.Context(), target, th, time.Now)
	close(stop)
	<-done
	want(t, list, "CONSUMER_004", doctor.Warning)
	want(t, doctor.Online(t.Context(), target, th, time.Now), "CONSUMER_004", doctor.OK)
}

const smallPolicy = `
tenant: demo
streams:
  - {name: ORDERS, subjects: [orders.>], maxBytes: 1MiB}
schemas:
  - {name: s, version: 1, text: '{"type":"object","required":["id"]}'}
subjects:
  - {match: orders.checked, schema: s}
principals:
  - {name: app, identities: [{nkey: {{nkey "app"}}}], publish: [orders.>], subscribe: [orders.>]}
  - {name: operator, identities: [{nkey: {{nkey "operator"}}}], admin: [dlq, keys, policy, refusals, status]}
`

func TestFullStreamAndRefusals(t *testing.T) {
	b := brokertest.New(t, brokertest.Options{Policy: smallPolicy})
	if err := publish(t, b, 100, 100_000); err == nil {
		t.Fatal("the stream is never full")
	}
	if _, err := b.Client("app").Publish(t.Context(), "orders.checked", client.NewEvent("x", []byte(`{}`))); err == nil {
		t.Fatal("the schema lets it pass")
	}
	api := admin.New(b.Client("operator"))
	for deadline := time.Now().Add(testTimeout); ; { // dead letters are written after the answer
		s, err := api.Status(t.Context())
		must(t, err)
		if s.DeadLetters.Messages > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no dead letter came")
		}
	}
	th := calm()
	th.Refusals = doctor.Pair{Warning: 1, Critical: 1000}
	th.Full = doctor.Pair{Warning: 50, Critical: 80}
	list := online(t, b, th, 0)
	want(t, list, "STREAM_001", doctor.Critical)
	want(t, list, "DLQ_003", doctor.Warning)
	want(t, list, "REFUSAL_001", doctor.Warning)
	want(t, online(t, b, th, 24*time.Hour), "REFUSAL_001", doctor.OK)
	th.Full = doctor.Pair{Warning: 0.00001, Critical: 0}
	want(t, online(t, b, th, 0), "DLQ_001", doctor.Warning)
	part, _ := doctor.Scrape(t.Context(), "http://"+b.OpsAddr().String(), testTimeout, th, time.Now())
	want(t, part, "STORE_001", doctor.Warning)
}

func TestReloadFailed(t *testing.T) {
	b := brokertest.New(t, brokertest.Options{})
	base := "http://" + b.OpsAddr().String()
	edit(t, b.State.Policy, "orders.>", "orders.>>")
	if err := b.Reload(t.Context()); err == nil {
		t.Fatal("a faulty policy was taken")
	}
	want(t, online(t, b, calm(), 0), "HEALTH_001", doctor.Critical)
	part, _ := doctor.Scrape(t.Context(), base, testTimeout, calm(), time.Now())
	want(t, part, "RELOAD_001", doctor.Critical)
	want(t, part, "OPS_002", doctor.OK)
}

func TestFolderAgainstBroker(t *testing.T) {
	b := brokertest.New(t, brokertest.Options{Durability: broker.DurabilityUnsafeLazy})
	_, folder := doctor.Offline(t.Context(), b.State.Config, nil, time.Now(), calm())
	target := doctor.Target{Nodes: []doctor.Node{node(b, "operator")}, Timeout: testTimeout, Folder: &folder}
	list := doctor.Online(t.Context(), target, calm(), time.Now)
	want(t, list, "POLICY_002", doctor.OK)
	want(t, list, "DURABILITY_002", doctor.Critical)
	folder.PolicyDigest = strings.Repeat("0", 64)
	want(t, doctor.Online(t.Context(), target, calm(), time.Now), "POLICY_002", doctor.Warning)
}

func TestExpiry(t *testing.T) {
	b := brokertest.New(t, brokertest.Options{})
	const day = 24 * time.Hour
	for _, tt := range []struct {
		later    time.Duration
		severity doctor.Severity
	}{{340 * day, doctor.Warning}, {400 * day, doctor.Critical}} {
		list := online(t, b, calm(), tt.later)
		want(t, list, "KEYS_003", tt.severity)
		part, _ := doctor.Scrape(t.Context(), "http://"+b.OpsAddr().String(), testTimeout, calm(), time.Now().Add(tt.later))
		want(t, part, "KEYS_005", tt.severity)
	}
	want(t, online(t, b, calm(), 900*day), "CERT_004", doctor.Critical)
	want(t, online(t, b, calm(), 900*day), "CERT_005", doctor.Critical)
}

// A certificate that has expired, as clients meet it.
func TestExpiredCertificate(t *testing.T) {
	dir := t.TempDir()
	b := brokertest.New(t, brokertest.Options{Dir: dir, Change: func(c *broker.Config) {
		authority, err := ca.Load(filepath.Join(dir, "ca"))
		must(t, err)
		must(t, authority.IssueServer(c.TLS.Certificate, c.TLS.Key, nil, time.Second))
		pem, err := os.ReadFile(c.TLS.Certificate)
		must(t, err)
		if len(pem) == 0 {
			t.Fatal("no certificate")
		}
	}})
	var list []doctor.Finding
	for deadline := time.Now().Add(testTimeout); ; { // it lives for a second
		list = online(t, b, calm(), 0)
		conn, _ := worst(list, "CONN_001")
		chain, _ := worst(list, "CERT_005")
		if conn.Severity == doctor.Critical && strings.Contains(chain.What, "has expired") || time.Now().After(deadline) {
			break
		}
	}
	want(t, list, "CONN_001", doctor.Critical)
	want(t, list, "CERT_005", doctor.Critical)
	if f, _ := worst(list, "CERT_005"); !strings.Contains(f.What, "expired") {
		t.Errorf("it says %q", f.What)
	}
}

func TestNoAnswerAndNoGrant(t *testing.T) {
	b := brokertest.New(t, brokertest.Options{})
	target := doctor.Target{Nodes: []doctor.Node{node(b, "app")}, Timeout: testTimeout}
	list := doctor.Online(t.Context(), target, calm(), time.Now)
	want(t, list, "CONN_001", doctor.OK)
	want(t, list, "HEALTH_001", doctor.Unknown)
	base := "http://" + b.OpsAddr().String()
	target.Nodes = []doctor.Node{node(b, "operator")}
	must(t, b.Shutdown(t.Context()))
	list = doctor.Online(t.Context(), target, calm(), time.Now)
	want(t, list, "CONN_001", doctor.Critical)
	part, text := doctor.Scrape(t.Context(), base, testTimeout, calm(), time.Now())
	want(t, part, "OPS_001", doctor.Critical)
	want(t, part, "OPS_002", doctor.Critical)
	want(t, part, "OPS_003", doctor.Unknown)
	if text != "" {
		t.Error("metrics of a broker that is gone")
	}
}

// What a broker says only when it is beyond what a test can do to it.
func TestScrapeBroken(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "stable storage reported an error", http.StatusServiceUnavailable)
	})
	mux.HandleFunc("/metrics", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "# HELP x y\nsignet_gate_panics_total 1\nprocess_open_fds 99\nprocess_max_fds 100\nnonsense\nalso nonsense x\n")
	})
	s := httptest.NewServer(mux)
	defer s.Close()
	list, _ := doctor.Scrape(t.Context(), s.URL, testTimeout, calm(), time.Now())
	for id, severity := range map[string]doctor.Severity{"OPS_001": doctor.Critical, "OPS_002": doctor.Critical, "OPS_003": doctor.OK, "PANIC_001": doctor.Warning, "LIMIT_002": doctor.Critical} {
		want(t, list, id, severity)
	}
}

func TestOnlineCluster(t *testing.T) {
	c := brokertest.NewCluster(t, 3, brokertest.Options{})
	target := doctor.Target{Timeout: testTimeout}
	for _, n := range c.Nodes {
		target.Nodes = append(target.Nodes, node(n, "operator"))
	}
	var list []doctor.Finding
	for deadline := time.Now().Add(testTimeout); ; { // at first another node may answer for it
		list = doctor.Online(t.Context(), target, calm(), time.Now)
		if f, _ := worst(list, "CLUSTER_001"); f.Severity == doctor.OK || time.Now().After(deadline) {
			break
		}
	}
	for _, id := range []string{"CLUSTER_001", "CLUSTER_002", "CLUSTER_003", "CLUSTER_004", "CONN_001"} {
		want(t, list, id, doctor.OK)
	}
	edit(t, c.Nodes[1].State.Policy, "# The policy", "# A policy")
	must(t, c.Nodes[1].Reload(t.Context()))
	c.Stop(2)
	for deadline := time.Now().Add(testTimeout); ; { // right after a reload another node may answer for it
		list = doctor.Online(t.Context(), target, calm(), time.Now)
		policy, _ := worst(list, "CLUSTER_002")
		copies, _ := worst(list, "CLUSTER_006")
		if policy.Severity == doctor.Critical && copies.Severity == doctor.Warning || time.Now().After(deadline) {
			break
		}
	}
	want(t, list, "CLUSTER_001", doctor.Warning)
	want(t, list, "CLUSTER_002", doctor.Critical)
	want(t, list, "CLUSTER_003", doctor.OK)
	want(t, list, "CLUSTER_005", doctor.OK)
	want(t, list, "CLUSTER_006", doctor.Warning)
}

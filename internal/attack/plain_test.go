package attack

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/signetbus/signet/internal/testca"
)

// plainServer is nats-server as it comes, with JetStream and TLS: no access control, and
// whatever certificate a client shows is taken.
func plainServer(t *testing.T) (url string, conf *tls.Config) {
	t.Helper()
	ca := testca.New(t, "plain")
	cert := ca.Issue(testca.Leaf{DNS: []string{"localhost"}, Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoLog: true, NoSigs: true, AllowNonTLS: true,
		TLS: true, TLSTimeout: 10, TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS12},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(time.Minute) {
		t.Fatal("nats-server does not start")
	}
	return "tls://" + s.Addr().String(), &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost", MinVersion: tls.VersionTLS12}
}

// TestAttacksWork: against nats-server as it comes every attack succeeds that can exist
// there. An attack that nothing stops, and that does not succeed, is none.
func TestAttacksWork(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	url, conf := plainServer(t)
	r, err := OpenPlain(ctx, url, conf)
	if r != nil {
		defer r.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, res := range Run(ctx, r, List(), nil) {
		if res.Plain != "" {
			if res.Verdict == Succeeded {
				t.Errorf("%d %s succeeds on plain nats-server, and says that it cannot: %s", res.Number, res.Name, res.Plain)
			}
			continue
		}
		if n++; res.Verdict != Succeeded {
			t.Errorf("%d %s: %s %s %s", res.Number, res.Name, res.Verdict, res.Code, res.Detail)
		}
	}
	t.Logf("%d of %d attacks succeed on plain nats-server", n, len(List()))
}

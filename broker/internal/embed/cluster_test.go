package embed

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"testing"

	"github.com/signetbus/signet/internal/freeport"
	"github.com/signetbus/signet/internal/testca"
)

// TestShutdownAtOnce: a node of a cluster that stops as soon as it has started leaves no
// listener behind, neither for goleak nor for the one that starts in its place.
func TestShutdownAtOnce(t *testing.T) {
	authority := testca.New(t, "routes")
	cert := authority.Issue(testca.Leaf{})
	routes, err := freeport.Addr()
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		s, err := Start(t.Context(), Config{ServerName: "n1", StoreDir: t.TempDir(), NoStore: true, Cluster: &ClusterConfig{
			Name: "test", Listen: routes, Nodes: map[string]string{"n1": routes},
			TLS:   &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: authority.Pool(), MinVersion: tls.VersionTLS13},
			Trust: func(string) error { return nil }, Token: func() string { return "" },
			Admit: func(string, string, *x509.Certificate) error { return nil },
		}})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", routes)
		if err != nil {
			t.Fatalf("the routes of the one before are still listened to: %v", err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

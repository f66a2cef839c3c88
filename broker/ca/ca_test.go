package ca

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

func newAuthority(t *testing.T, dir string) *Authority {
	t.Helper()
	a, err := Create(dir, "test CA")
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// issue makes a CA and a server pair in a new directory.
func issue(t *testing.T, hosts ...string) (a *Authority, certFile, keyFile string) {
	t.Helper()
	dir := t.TempDir()
	a = newAuthority(t, dir)
	certFile, keyFile = filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key")
	if err := a.IssueServer(certFile, keyFile, hosts, 0); err != nil {
		t.Fatal(err)
	}
	return a, certFile, keyFile
}

// handshake returns the client's view of one handshake.
func handshake(t *testing.T, server, client *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	s, c := net.Pipe()
	deadline := time.Now().Add(10 * time.Second)
	for _, p := range []net.Conn{s, c} {
		if err := p.SetDeadline(deadline); err != nil {
			t.Fatal(err)
		}
		defer p.Close()
	}
	done := make(chan error, 1)
	go func() { done <- tls.Server(s, server).Handshake() }()
	tc := tls.Client(c, client)
	err := tc.HandshakeContext(t.Context())
	if err != nil {
		c.Close()
	}
	if serr := <-done; err == nil {
		err = serr
	}
	return tc.ConnectionState(), err
}

func clientConfig(t *testing.T, a *Authority, name string) *tls.Config {
	t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(a.CertPEM()) {
		t.Fatal("the CA's PEM holds no certificate")
	}
	return &tls.Config{RootCAs: pool, ServerName: name}
}

func TestServerCertificate(t *testing.T) {
	a, certFile, keyFile := issue(t, "bus.example.org", "*.bus.example.org", "10.1.2.3")
	r, err := ServerTLS(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"localhost", "127.0.0.1", "::1", "bus.example.org", "a.bus.example.org", "10.1.2.3"} {
		st, err := handshake(t, r.Config(), clientConfig(t, a, name))
		if err != nil || st.Version != tls.VersionTLS13 {
			t.Errorf("%s: version %x, %v", name, st.Version, err)
		}
	}
	if _, err := handshake(t, r.Config(), clientConfig(t, a, "evil.example.org")); err == nil {
		t.Error("a name that the certificate does not hold was accepted")
	}
	if _, err := handshake(t, r.Config(), clientConfig(t, newAuthority(t, t.TempDir()), "localhost")); err == nil {
		t.Error("a client of another CA accepted it")
	}
	old := clientConfig(t, a, "localhost")
	old.MaxVersion = tls.VersionTLS12
	if _, err := handshake(t, r.Config(), old); err == nil {
		t.Error("TLS 1.2 was accepted")
	}
	if d := time.Until(r.Expires()); d > DefaultServerTTL || d < DefaultServerTTL-time.Hour {
		t.Errorf("expires in %v", d)
	}
}

func TestFileModes(t *testing.T) {
	_, certFile, keyFile := issue(t)
	dir := filepath.Dir(certFile)
	for name, want := range map[string]fs.FileMode{CACertFile: 0o644, CAKeyFile: 0o600, "server.pem": 0o644, "server.key": 0o600} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want %v", name, info.Mode(), err, want)
		}
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".*.tmp")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	for _, mode := range []fs.FileMode{0o644, 0o604, 0o660, 0o620} {
		if err := errors.Join(os.Chmod(keyFile, mode), os.Chmod(filepath.Join(dir, CAKeyFile), mode)); err != nil {
			t.Fatal(err)
		}
		if _, err := ServerTLS(certFile, keyFile); !errors.Is(err, ErrKeyMode) {
			t.Errorf("server key %v: got %v, want ErrKeyMode", mode, err)
		}
		if _, err := Load(dir); !errors.Is(err, ErrKeyMode) {
			t.Errorf("CA key %v: got %v, want ErrKeyMode", mode, err)
		}
	}
}

func TestKeyMode(t *testing.T) {
	for _, tc := range []struct {
		mode          fs.FileMode
		owner, reader int
		want          bool
	}{
		{0o600, 1000, 1000, true},
		{0o400, 0, 0, true},
		{0o700, 0, 1000, true},
		{0o440, 0, 1000, true},
		{0o640, 0, 1000, true}, // a mounted secret
		{0o640, 1000, 1000, false},
		{0o640, 0, 0, false},
		{0o660, 0, 1000, false},
		{0o444, 0, 1000, false},
		{0o604, 0, 1000, false},
		{0o601, 1000, 1000, false},
	} {
		if got := keyModeOK(tc.mode, tc.owner, tc.reader); got != tc.want {
			t.Errorf("mode %#o, owner %d, reader %d: got %v", tc.mode, tc.owner, tc.reader, got)
		}
	}
}

func TestCreateAndLoad(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "dir")
	a := newAuthority(t, dir)
	if _, err := Create(dir, "again"); !errors.Is(err, ErrExists) {
		t.Errorf("second Create: got %v, want ErrExists", err)
	}
	b, err := Load(dir)
	if err != nil || string(a.CertPEM()) != string(b.CertPEM()) {
		t.Errorf("Load: %v", err)
	}
	if d := time.Until(b.Expires()); d > AuthorityTTL || d < AuthorityTTL-time.Hour {
		t.Errorf("the CA expires in %v", d)
	}
	if _, err := Load(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no CA: got %v, want fs.ErrNotExist", err)
	}
	if _, err := load(dir, func() time.Time { return time.Now().Add(AuthorityTTL) }); !errors.Is(err, ErrInvalid) {
		t.Errorf("expired CA: got %v, want ErrInvalid", err)
	}
	if _, err := Create(t.TempDir(), " "); !errors.Is(err, ErrInvalid) {
		t.Errorf("no name: got %v, want ErrInvalid", err)
	}
	other := t.TempDir()
	newAuthority(t, other)
	if err := os.Rename(filepath.Join(other, CAKeyFile), filepath.Join(dir, CAKeyFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); !errors.Is(err, ErrInvalid) {
		t.Errorf("key of another CA: got %v, want ErrInvalid", err)
	}
}

func TestIssueServerRefuses(t *testing.T) {
	dir := t.TempDir()
	a := newAuthority(t, dir)
	certFile, keyFile := filepath.Join(dir, "s.pem"), filepath.Join(dir, "s.key")
	for _, host := range []string{"", "a b", "a..b", "-a", "a-", "*", "a.*.b", "http://a", "a:1", "a/b", "a_b", "\x00", "exa\u0301mple"} {
		if err := a.IssueServer(certFile, keyFile, []string{host}, 0); !errors.Is(err, ErrInvalid) {
			t.Errorf("host %q: got %v, want ErrInvalid", host, err)
		}
	}
	if err := a.IssueServer(certFile, keyFile, nil, -1); !errors.Is(err, ErrInvalid) {
		t.Errorf("negative lifetime: got %v, want ErrInvalid", err)
	}
	if err := a.IssueServer(certFile, keyFile, nil, 2*AuthorityTTL); err != nil {
		t.Fatal(err)
	}
	r, err := ServerTLS(certFile, keyFile)
	if err != nil || r.Expires().After(a.Expires()) {
		t.Errorf("a certificate outlives its CA: %v, %v", r.Expires(), err)
	}
}

func TestServerTLSRefuses(t *testing.T) {
	a, certFile, keyFile := issue(t)
	dir := filepath.Dir(certFile)
	if _, err := ServerTLS(filepath.Join(dir, CACertFile), filepath.Join(dir, CAKeyFile)); !errors.Is(err, ErrInvalid) {
		t.Errorf("CA as a server: got %v, want ErrInvalid", err)
	}
	if _, err := newReloader(certFile, keyFile, func() time.Time { return a.Expires() }); !errors.Is(err, ErrInvalid) {
		t.Errorf("expired: got %v, want ErrInvalid", err)
	}
	if _, err := ServerTLS(certFile, filepath.Join(dir, CAKeyFile)); !errors.Is(err, ErrInvalid) {
		t.Errorf("key of another certificate: got %v, want ErrInvalid", err)
	}
	if _, err := ServerTLS(dir, keyFile); !errors.Is(err, ErrInvalid) {
		t.Errorf("directory: got %v, want ErrInvalid", err)
	}
	if _, err := ServerTLS(certFile+"x", keyFile); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: got %v, want fs.ErrNotExist", err)
	}
}

func TestReload(t *testing.T) {
	a, certFile, keyFile := issue(t)
	var clock atomic.Int64
	clock.Store(time.Now().UnixNano())
	r, err := newReloader(certFile, keyFile, func() time.Time { return time.Unix(0, clock.Load()) })
	if err != nil {
		t.Fatal(err)
	}
	var failures []error
	r.OnError(func(err error) { failures = append(failures, err) })
	serial := func() string {
		t.Helper()
		clock.Add(int64(checkEvery))
		st, err := handshake(t, r.Config(), clientConfig(t, a, "localhost"))
		if err != nil {
			t.Fatal(err)
		}
		return st.PeerCertificates[0].SerialNumber.String()
	}
	first := serial()
	if serial() != first {
		t.Error("it changed without new files")
	}
	if err := a.IssueServer(certFile, keyFile, nil, time.Hour); err != nil {
		t.Fatal(err)
	}
	second := serial()
	if second == first || time.Until(r.Expires()) > time.Hour {
		t.Error("the new files were not picked up")
	}
	// A broken or loose pair is kept out, told once, and the good one stays.
	if err := os.WriteFile(certFile, []byte("not a certificate"), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if serial() == second {
			continue
		}
		t.Error("the good certificate did not stay")
	}
	if len(failures) != 1 || !errors.Is(failures[0], ErrInvalid) {
		t.Errorf("told %v, want ErrInvalid once", failures)
	}
	if err := os.Remove(certFile); err != nil {
		t.Fatal(err)
	}
	if serial() != second || len(failures) != 2 || !errors.Is(failures[1], fs.ErrNotExist) {
		t.Errorf("removed file: told %v", failures)
	}
	if err := a.IssueServer(certFile, keyFile, nil, 0); err != nil {
		t.Fatal(err)
	}
	if s := serial(); s == second || len(failures) != 2 {
		t.Errorf("the third pair was not picked up: %v", failures)
	}
}

package bench

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/broker/ca"
)

// startRaw starts nats-server as a careful operator would without Signet: TLS 1.3
// with the same kind of certificate, a client key instead of open doors, JetStream
// in files. Everything else is its default.
func startRaw(ctx context.Context, cfg *ServerConfig) (*Address, stopFunc, error) {
	certFile, keyFile := filepath.Join(cfg.Dir, "server.pem"), filepath.Join(cfg.Dir, "server.key")
	_, err := ca.Load(cfg.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		var authority *ca.Authority
		if authority, err = ca.Create(cfg.Dir, "raw"); err == nil {
			err = authority.IssueServer(certFile, keyFile, nil, 0)
		}
	}
	if err != nil {
		return nil, nil, err
	}
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, nil, err
	}
	seedFile := filepath.Join(cfg.Dir, Cred+".nk")
	user, err := userKey(seedFile)
	if err != nil {
		return nil, nil, err
	}
	o := &server.Options{
		ServerName: "raw", Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true,
		TLS: true, TLSTimeout: 10, TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13},
		Nkeys:     []*server.NkeyUser{{Nkey: user}},
		JetStream: true, StoreDir: cfg.store(), SyncAlways: cfg.Sync == Durable,
	}
	if cfg.Listen != "" {
		_, port, err := net.SplitHostPort(cfg.Listen)
		if err != nil {
			return nil, nil, err
		}
		if o.Port, err = strconv.Atoi(port); err != nil {
			return nil, nil, err
		}
	}
	s, err := server.NewServer(o)
	if err != nil {
		return nil, nil, err
	}
	go s.Start() // returns when it listens
	if !s.ReadyForConnections(startWait) {
		return nil, nil, errors.New("bench: nats-server is not ready")
	}
	stop := func(context.Context) error {
		s.Shutdown()
		s.WaitForShutdown()
		return nil
	}
	return &Address{
		URL: "tls://" + s.Addr().String(), CA: filepath.Join(cfg.Dir, ca.CACertFile),
		Creds: map[string]string{Cred: seedFile},
	}, stop, ctx.Err()
}

func (c *ServerConfig) store() string {
	if c.Store != "" {
		return c.Store
	}
	return filepath.Join(c.Dir, "store")
}

// userKey returns the public key of the user seed in file, which it makes if need be.
func userKey(file string) (string, error) {
	seed, err := os.ReadFile(file)
	var kp nkeys.KeyPair
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if kp, err = nkeys.CreateUser(); err != nil {
			return "", err
		}
		if seed, err = kp.Seed(); err != nil {
			return "", err
		}
		if err := os.WriteFile(file, seed, 0o600); err != nil {
			return "", err
		}
	case err != nil:
		return "", err
	default:
		if kp, err = nkeys.FromSeed(seed); err != nil {
			return "", fmt.Errorf("bench: %s: %w", file, err)
		}
	}
	return kp.PublicKey()
}

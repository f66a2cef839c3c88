package bench

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/rs/zerolog"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/ca"
	"github.com/signetbus/signet/internal/freeport"
)

// clusterName is that of every cluster that is measured.
const clusterName = "bench"

// startSignetNodes starts cfg.Nodes nodes of Signet in this process.
func startSignetNodes(ctx context.Context, cfg *ServerConfig) (*Address, stopFunc, error) {
	addrs, err := unusedAddrs(2 * cfg.Nodes)
	if err != nil {
		return nil, nil, err
	}
	s := broker.ClusterSetup{Dir: cfg.Dir, Name: clusterName, Policy: cfg.Policy}
	for i := range cfg.Nodes {
		s.Nodes = append(s.Nodes, broker.ClusterNode{Name: fmt.Sprintf("n%d", i+1), Listen: addrs[2*i], Client: addrs[2*i], Route: addrs[2*i+1]})
	}
	states, err := s.Run()
	if err != nil {
		return nil, nil, err
	}
	a := &Address{CA: states[0].CA, Creds: states[0].Creds, Root: states[0].Root}
	var urls []string
	brokers := make([]*broker.Broker, len(states))
	for i, st := range states {
		c, err := broker.LoadConfig(st.Config, nil)
		if err != nil {
			return nil, nil, err
		}
		c.Ops.Listen = "off"
		c.Drain = stopWait / 2
		c.Gate.ConnectionRate = 100000 // the driver is one address
		if cfg.Sync == Lazy {
			c.Storage.Durability = broker.DurabilityUnsafeLazy
		}
		if brokers[i], err = broker.New(c, "bench", zerolog.New(os.Stderr).Level(zerolog.FatalLevel).With().Str("node", c.Name).Logger()); err != nil {
			return nil, nil, err
		}
		urls, a.Policies = append(urls, "tls://"+addrs[2*i]), append(a.Policies, st.Policy)
	}
	a.URL = strings.Join(urls, ",")
	each := func(do func(*broker.Broker) error) error {
		faults := make([]error, len(brokers))
		var wg sync.WaitGroup
		for i, b := range brokers { // at once: one after the other they would wait for a quorum
			wg.Go(func() { faults[i] = do(b) })
		}
		wg.Wait()
		return errors.Join(faults...)
	}
	stop := func(ctx context.Context) error { return each(func(b *broker.Broker) error { return b.Shutdown(ctx) }) }
	return a, stop, each(func(b *broker.Broker) error { return b.Start(ctx) })
}

// startRawNodes starts cfg.Nodes nodes of nats-server in this process, with mutual TLS
// between them as Signet has it; the rest is as in startRaw.
func startRawNodes(ctx context.Context, cfg *ServerConfig) (*Address, stopFunc, error) {
	addrs, err := unusedAddrs(2 * cfg.Nodes)
	if err != nil {
		return nil, nil, err
	}
	authority, err := ca.Create(cfg.Dir, "raw")
	if err != nil {
		return nil, nil, err
	}
	seedFile := filepath.Join(cfg.Dir, Cred+".nk")
	user, err := userKey(seedFile)
	if err != nil {
		return nil, nil, err
	}
	var servers []*server.Server
	var urls []string
	for i := range cfg.Nodes {
		o, err := rawNode(cfg, authority, user, addrs, i)
		if err != nil {
			return nil, nil, err
		}
		s, err := server.NewServer(o)
		if err != nil {
			return nil, nil, err
		}
		go s.Start() // returns when it listens
		servers, urls = append(servers, s), append(urls, "tls://"+addrs[2*i])
	}
	for _, s := range servers {
		if !s.ReadyForConnections(startWait) {
			return nil, nil, errors.New("bench: nats-server is not ready")
		}
	}
	stop := func(context.Context) error {
		for _, s := range servers {
			s.Shutdown()
		}
		for _, s := range servers {
			s.WaitForShutdown()
		}
		return nil
	}
	a := &Address{URL: strings.Join(urls, ","), CA: filepath.Join(cfg.Dir, ca.CACertFile), Creds: map[string]string{Cred: seedFile}}
	return a, stop, awaitRawLeader(ctx, servers)
}

func rawNode(cfg *ServerConfig, authority *ca.Authority, user string, addrs []string, i int) (*server.Options, error) {
	name := fmt.Sprintf("n%d", i+1)
	dir := filepath.Join(cfg.Dir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	cert, key := filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key")
	routeCert, routeKey := filepath.Join(dir, "route.pem"), filepath.Join(dir, "route.key")
	if err := errors.Join(authority.IssueServer(cert, key, nil, 0), authority.IssueNode(routeCert, routeKey, clusterName, name, nil, 0)); err != nil {
		return nil, err
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	reload, err := ca.ServerTLS(routeCert, routeKey)
	if err != nil {
		return nil, err
	}
	trusted, err := ca.TrustFile(filepath.Join(cfg.Dir, ca.CACertFile))
	if err != nil {
		return nil, err
	}
	routes, err := reload.RouteConfig(trusted, clusterName, name, func(string) error { return nil })
	if err != nil {
		return nil, err
	}
	client, err := net.ResolveTCPAddr("tcp", addrs[2*i])
	if err != nil {
		return nil, err
	}
	route, err := net.ResolveTCPAddr("tcp", addrs[2*i+1])
	if err != nil {
		return nil, err
	}
	o := &server.Options{
		ServerName: name, Host: "127.0.0.1", Port: client.Port, NoSigs: true, NoLog: true,
		TLS: true, TLSTimeout: 10, TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13},
		Nkeys:     []*server.NkeyUser{{Nkey: user}},
		JetStream: true, StoreDir: filepath.Join(dir, "store"), SyncAlways: cfg.Sync == Durable,
		Cluster: server.ClusterOpts{
			Name: clusterName, Host: "127.0.0.1", Port: route.Port, NoAdvertise: true, TLSConfig: routes, TLSTimeout: 10,
			Compression: server.CompressionOpts{Mode: server.CompressionOff},
		},
	}
	for k := 1; k < len(addrs); k += 2 {
		if k != 2*i+1 {
			o.Routes = append(o.Routes, &url.URL{Scheme: "nats-route", Host: addrs[k]})
		}
	}
	return o, nil
}

// awaitRawLeader waits until the nodes have chosen who leads.
func awaitRawLeader(ctx context.Context, servers []*server.Server) error {
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		leaders, current := 0, 0
		for _, s := range servers {
			if s.JetStreamIsLeader() {
				leaders++
			}
			if s.JetStreamIsCurrent() {
				current++
			}
		}
		if leaders == 1 && current == len(servers) {
			return nil
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return fmt.Errorf("bench: raw nodes: %d of them lead, %d are current: %w", leaders, current, ctx.Err())
		}
	}
}

// unusedAddrs returns addresses on loopback that nobody else is given.
func unusedAddrs(n int) ([]string, error) {
	var out []string
	for range n {
		addr, err := freeport.Addr()
		if err != nil {
			return nil, fmt.Errorf("bench: %w", err)
		}
		out = append(out, addr)
	}
	return out, nil
}

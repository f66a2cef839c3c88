package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/rs/zerolog"

	"github.com/signetbus/signet/broker/admin"
	"github.com/signetbus/signet/broker/admission"
	"github.com/signetbus/signet/broker/deadletter"
	"github.com/signetbus/signet/broker/gate"
	"github.com/signetbus/signet/broker/internal/embed"
	"github.com/signetbus/signet/broker/jsapi"
	"github.com/signetbus/signet/broker/ops"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/broker/schedule"
	"github.com/signetbus/signet/broker/store"
	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
)

// headerBudget is what a stored message may be larger than the payload that the
// gate advertises: JetStream's own limit of a header block.
const headerBudget = 64 << 10

// ownPayload is what the broker's own messages need, whatever clients may send: a
// batch of the trail, and a page of audit.MaxReadBytes or a keyring in base64 inside JSON.
const ownPayload = keyring.MaxDocumentBytes*4/3 + headerBudget

// serverPayload is the limit of the embedded server. Clients meet that of the gate.
func serverPayload(gate ByteSize) int { return max(int(gate)+headerBudget, ownPayload) }

// startup is a broker while Start brings its parts up, one step after the other;
// each step registers how its part is stopped.
type startup struct{ *Broker }

func (b *Broker) component(name string) zerolog.Logger {
	return b.log.With().Str("component", name).Logger()
}

func (b startup) startServer(ctx context.Context, m *material) error {
	accounts, err := declaredAccounts(m.policy, &b.cfg)
	if err != nil {
		return err
	}
	if accounts, err = withRemembered(b.cfg.State, accounts); err != nil {
		return err
	}
	cluster, err := clusterOptions(b)
	if err != nil {
		return err
	}
	if b.cfg.Storage.Durability == DurabilityBarrier {
		b.barrier, err = store.NewBarrier(b.cfg.State)
		if errors.Is(err, store.ErrUnsupported) {
			b.log.Warn().Err(err).Msg("no durability barrier here: sync-always instead")
		} else if err != nil {
			return err
		} else {
			b.running("barrier", func(context.Context) error { return b.barrier.Close() })
		}
	}
	atRest, err := b.cfg.Storage.Encryption.load()
	if err != nil {
		return err
	}
	defer atRest.Wipe()
	cfg := b.serverConfig(accounts, cluster, atRest)
	if cluster != nil {
		if cfg.Tenants, err = hearTenants(ctx, b, cfg); err != nil {
			return err
		}
	}
	if b.server, err = embed.Start(ctx, cfg); err != nil {
		return err
	}
	b.running("server", b.server.Shutdown)
	m.accounts = cfg.Tenants
	b.logAtRest()
	if cluster == nil {
		return nil
	}
	if b.nodes, err = b.joinNodes(b.server); err != nil {
		return err
	}
	trusted := trustedNodes(b.Broker)
	b.nodes.trusted.Store(&trusted)
	b.running("nodes", func(context.Context) error { b.nodes.close(); return nil })
	return startLimits(b)
}

func (b startup) serverConfig(accounts []embed.TenantAccount, cluster *embed.ClusterConfig, atRest *embed.Encryption) embed.Config {
	log := b.component("nats-server")
	return embed.Config{
		StoreDir: b.cfg.State, Tenants: accounts, ServerName: b.cfg.Name, Cluster: cluster,
		SyncAlways: b.Durability() == DurabilitySyncAlways,
		MaxPayload: serverPayload(b.cfg.Gate.MaxPayload),
		Encryption: atRest,
		Inspect:    b.inspectStore, Stopped: b.sealStore,
		Log: func(level, msg string) {
			// The server is chatty at info about its own start; that is debug to us.
			switch level {
			case embed.LevelError:
				log.Error().Msg(msg)
			case embed.LevelWarn:
				log.Warn().Msg(msg)
			default:
				log.Debug().Msg(msg)
			}
		},
	}
}

// openStore makes no request yet: a cluster may have no quorum.
func (b startup) openStore(ctx context.Context, _ *material) error {
	var err error
	b.store, err = store.Open(ctx, store.Config{
		Internal: store.Internal(b.server), Barrier: b.barrier, Nodes: b.cfg.size(), Node: b.cfg.Name,
		Deleted: func(ctx context.Context, account, stream string) error {
			return embed.AwaitDeleted(ctx, b.server, account, stream)
		},
	})
	if err != nil {
		return err
	}
	b.running("store", func(context.Context) error { return b.store.Close() })
	return nil
}

func (b startup) makeStreams(ctx context.Context, m *material) error {
	// What is stored may reserve more than the policy declares by now: a stream that
	// was dropped from the policy keeps its data.
	accounts, err := b.reservedAccounts(ctx, m.policy)
	if err != nil {
		return err
	}
	// While other nodes make streams, a reload is not without risk: nats-server reads its
	// options there without a lock.
	started := m.accounts
	if slices.ContainsFunc(accounts, func(a embed.TenantAccount) bool { return !slices.Contains(started, a) }) {
		if err := b.server.ReloadAccounts(accounts); err != nil {
			return err
		}
	}
	m.accounts = accounts
	if err := b.nodes.awaitTenants(ctx, accounts); err != nil {
		return err
	}
	if err := b.store.ApplyPolicy(ctx, m.policy); err != nil {
		return err
	}
	return revokeConsumers(ctx, b.Broker, m.policy)
}

func (b startup) startDeadLetters(ctx context.Context, _ *material) error {
	b.letters = deadletter.New(deadletter.Config{
		Store: letterStore{b: b.Broker}, Log: b.component("deadletter"),
		Dropped: func(tenant string, cause deadletter.Cause, count uint64) {
			b.trail.Event("dead-letters-dropped", tenant, "", "", fmt.Sprintf("%d dropped: %s", count, cause))
		},
	})
	if err := b.letters.Start(ctx); err != nil {
		return err
	}
	b.running("dead letters", b.letters.Shutdown)
	return nil
}

func (b startup) startAdmin(_ context.Context, m *material) error {
	backups, err := b.startBackups()
	if err != nil {
		return err
	}
	redriver, err := newRedriver(b.Broker)
	if err != nil {
		return err
	}
	b.admin, err = admin.New(admin.Config{
		Node: b.cfg.Name, Backups: backups, Policy: b.Policy, Trail: b.trail, Kept: admin.Kept{Letters: letterBook{b.store, redriver}, Schedules: schedule.NewBook(b.store, b.chain.Load)},
		Recording: &admin.Recording{Journal: b.journal, Minute: b.minute, Records: b.records, Heads: loggedHeads(b.Broker), Unaudited: b.cfg.Audit.UnsafeContinueUnaudited},
		Status:    view(b).status, Consumers: view(b).consumers, Conn: b.store.Conn, Log: b.component("admin"),
		Nodes: b.adminNodes(), Logs: logs{b.logs.Load()}, PutKeys: func(ctx context.Context, doc []byte, cutOff []string) (adminapi.KeysPut, error) {
			return putKeys(ctx, b.Broker, doc, cutOff)
		},
		Certify: certifier(b.Broker),
		Keyring: func() (*keyring.Ring, []byte) {
			m := b.material.Load()
			return m.ring, m.ringDoc
		},
		LetsIn: func(p *policy.Principal) bool { return b.material.Load().trust.door.Lets(p) },
		Judge:  judgeOf(b.Broker), Policies: policyAdmin{b.Broker}, Started: b.started,
	})
	if err != nil {
		return err
	}
	b.nodes.serve(b.admin)
	b.running("admin", b.admin.Shutdown)
	return b.admin.Serve(m.policy)
}

func (b startup) startOps(_ context.Context, _ *material) error {
	if b.cfg.Ops.Listen == "off" {
		return nil
	}
	s, err := ops.New(ops.Config{
		Listen: b.cfg.Ops.Listen, Sources: view(b).metrics(), Live: view(b).live, Ready: view(b).ready,
		Started: func() error {
			if phase(b.phase.Load()) < phaseReady {
				return ErrNotReady
			}
			return nil
		},
	})
	if err != nil {
		return err
	}
	b.ops = s
	s.Start()
	b.running("operations port", s.Shutdown)
	return nil
}

func (b *Broker) newChain(m *material) (*admission.Chain, error) {
	from, until := m.attests()
	taken := connectionKeys(m)
	for id, principal := range taken {
		b.log.Error().Str("key", id).Str("principal", principal).
			Msg("a producer key of the keyring is what a principal connects with: what it signs is refused; issue another event key, and revoke this one")
	}
	return admission.NewChain(admission.Config{
		Node: b.cfg.Name, Policy: m.policy.Digest(),
		NotBefore: from, NotAfter: until,
		Room: &b.guards.room, StreamRoom: b.guards.streams.of,
		Keyring: func() *keyring.Ring { return b.material.Load().ring }, Seen: &b.seen, Connections: taken,
		Signer: m.signer, Buckets: &b.buckets, Validator: m.validator,
		MaxPayload: int(b.cfg.Gate.MaxPayload), Explain: b.cfg.Dev,
		Attested: func(tenant, stream string) admission.Attested { return b.attested.Stream(tenant, stream) },
	})
}

// makeGate makes the gate without opening its door: metrics and probes, which
// answer before it does, read its counters.
func makeGate(b *Broker, m *material) error {
	chain, err := b.newChain(m)
	if err != nil {
		return err
	}
	b.chain.Store(chain)
	deps := gate.Deps{
		Upstream: b.server, Owners: b.store, Consumers: consumersOf(b.store), Authenticate: authenticator(b), Guard: jsapi.New(jsapi.Config{}), Policy: m.policy,
		Admission:  func(p *policy.Principal) *admission.Session { return b.chain.Load().Session(p) },
		Memory:     b.guards.memory.Over,
		Recordable: b.recordable,
		Sink:       newSink(b, "gate"),
		Failures:   failed{b.keeper},
	}
	if b.barrier != nil {
		deps.Barrier = b.barrier
	}
	if b.Durability() != DurabilityUnsafeLazy {
		deps.NoReceipt = func() error { return noReceipt(b) }
		deps.Receipt = func(r signing.Receipt) ([]byte, error) {
			if err := noReceipt(b); err != nil {
				return nil, err
			}
			return b.chain.Load().SignReceipt(r, time.Now())
		}
	}
	proxies, err := b.cfg.Gate.proxies()
	if err != nil {
		return err
	}
	b.gate, err = gate.New(gate.Config{
		Proxies: proxies,
		Listen:  b.cfg.Listen, Advertise: b.cfg.Advertise, TLS: clientTLS(b.cert, &b.cfg.Authentication), Handshake: gate.Handshake(b.cfg.TLS.Handshake),
		ServerID: m.signer.KeyID(), ServerName: b.cfg.Name, Version: embed.Version, ExplainToCaller: b.cfg.Dev,
		Limits: gate.Limits{
			Connections: b.cfg.Gate.MaxConnections, PerIPRate: float64(b.cfg.Gate.ConnectionRate), PerIPBurst: 2 * b.cfg.Gate.ConnectionRate,
			FailedLogins: b.cfg.Gate.FailedLogins,
			Payload:      int(b.cfg.Gate.MaxPayload), HeaderBudget: headerBudget, Subscriptions: b.cfg.Gate.MaxSubscriptions,
			PrincipalConnections: b.cfg.Gate.MaxConnectionsPerPrincipal,
			APIRate:              float64(b.cfg.Gate.APIRate), APIReadRate: float64(b.cfg.Gate.APIReadRate),
		},
		// Few clients leave by themselves when they are told (there is nowhere else to
		// go before there is a cluster): waiting longer would only delay the stop.
		Timeouts: gate.Timeouts{Drain: min(b.cfg.Drain/4, 3*time.Second), OwnerTTL: b.cfg.ownerTTL()},
	}, deps)
	return err
}

func (b startup) startGate(ctx context.Context, _ *material) error {
	if err := b.gate.Start(ctx); err != nil {
		return err
	}
	b.running("gate", func(ctx context.Context) error {
		return errors.Join(b.gate.Drain(ctx), b.gate.Shutdown(ctx))
	})
	return nil
}

// startWatch reloads when a file changes, and once a minute sweeps idle token buckets and old signed events,
// checks the consumers and the nodes' keys, reloads again what failed for want of other
// nodes, compares the nodes' clocks (at once when the one here was set), and says which limits
// turned connections away.
func (b startup) startWatch(context.Context, *material) error {
	life, stop := context.WithCancel(context.Background())
	w, err := watch(watchedFiles(&b.cfg, b.Policy()), func() {
		_ = b.Reload(life) // it has logged what was wrong
	}, func(err error) { b.log.Warn().Err(err).Msg("file watch") })
	if err != nil {
		stop()
		return err
	}
	b.files = w
	b.seen.Begin(time.Now())
	swept := make(chan struct{})
	go func() {
		defer close(swept)
		t, door, ends := time.NewTicker(time.Minute), doorLog{}, expiryLog{}
		var own ownRenewal
		defer t.Stop()
		clock, began := time.NewTicker(clockEvery), time.Now()
		defer clock.Stop()
		set := clockSet{wall: began.Round(0)}
		for {
			select {
			case <-life.Done():
				return
			case now := <-t.C:
				b.buckets.Sweep(now.UnixNano())
				b.seen.Sweep(now)
				b.gate.Tally()
				flushMinute(life, b.Broker)
				recheckConsumers(life, b.Broker)
				recheckNodes(b.Broker)
				own.run(life, b.Broker, now)
				ends.report(b.Broker, now)
				reloadAgain(life, b.Broker)
				compareClocks(life, b.Broker)
				door.report(b.log, b.gate.Stats().TurnedAway)
			case <-clock.C:
				watchClock(life, b.Broker, &set, began)
			}
		}
	}()
	b.running("file watch", func(context.Context) error {
		stop()
		<-swept
		return w.close()
	})
	return nil
}

// guardServer shuts the broker down when the embedded server ends by itself, or when
// only a new one can make use of the space that is back: a gate without a server only
// turns clients away, and a supervisor can start a new one.
func guardServer(b *Broker) {
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-stop:
			return
		case <-b.server.Done():
			b.log.Error().AnErr("error", b.server.Err()).Msg("the embedded server ended, shutting down")
		case <-b.guards.back:
		}
		ctx, cancel := context.WithTimeout(context.Background(), b.cfg.Drain)
		defer cancel()
		_ = b.Shutdown(ctx) // it logs its error; ErrNotReady: somebody else is at it
	}()
	b.running("server guard", func(context.Context) error {
		close(stop)
		select {
		case <-ended:
		case <-b.server.Done(): // it may be the goroutine itself that waits here
		case <-b.guards.back: // the same
		}
		return nil
	})
}

package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/signetbus/signet/broker/internal/embed"
	"github.com/signetbus/signet/internal/durablefile"
	"github.com/signetbus/signet/internal/wire"
)

const (
	peerWait    = 90 * time.Second // for the other nodes to learn of a new tenant
	tenantsFile = "tenants.json"
	// hearLimit is how long a node that knows the tenants from before listens for new
	// ones. One that does not listens until it has heard enough.
	hearLimit = 2 * time.Second
)

// hearTenants returns the accounts of cfg and those that the other nodes have beside
// them. A server that starts without the account of a stream which has a copy on it
// leaves that copy dead, and makes the cluster delete the stream if it is younger than
// five seconds (nats-server 2.15.2; seen with a node whose volume was new and whose
// policy was old). So the accounts must be known before the store starts. It listens
// with a server that has no store. Whoever has made a stream of a tenant was in touch
// with a majority that knew the tenant; so hearing half of the nodes besides this one is
// enough. What was heard is written down.
func hearTenants(ctx context.Context, b startup, cfg embed.Config) (_ []embed.TenantAccount, err error) {
	all := cfg.Tenants
	own, err := readHolding(b.cfg.State)
	if err != nil {
		return nil, err
	}
	b.held.now.Store(&own)
	_, statErr := os.Stat(filepath.Join(b.cfg.State, tenantsFile))
	cfg.NoStore, cfg.Inspect, cfg.Stopped = true, nil, nil
	server, err := embed.Start(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.Shutdown(context.WithoutCancel(ctx))) }()
	n, err := b.joinNodes(server)
	if err != nil {
		return nil, err
	}
	defer n.close()
	port := &waitingPort{b: b.Broker}
	defer func() { err = errors.Join(err, port.close(context.WithoutCancel(ctx))) }()
	q := question{Without: b.cfg.Name}
	if !b.held.get().remembers() {
		q.Fill = b.cfg.Name
	}
	poll := time.NewTicker(quorumPoll)
	defer poll.Stop()
	began := time.Now()
	for told := began; ; {
		infos := n.ask(ctx, q)
		for i := range infos {
			all = n.learn(all, &infos[i])
		}
		waits := wrongClock(infos)
		if errors.Is(waits, ErrClock) {
			return nil, fmt.Errorf("%w, then start again: nothing was opened", waits)
		}
		// A damaged copy may be thrown away only where the others have it all: who is
		// ready has looked, and one no outweighs.
		ready := slices.DeleteFunc(slices.Clone(infos), func(i nodeInfo) bool { return i.Phase != phaseNames[phaseReady] })
		keeps := len(ready) > 0 && !slices.ContainsFunc(ready, func(i nodeInfo) bool { return !i.Keeps })
		b.damage.peers = func() bool { return keeps }
		if waits == nil && (len(infos) >= b.cfg.size()/2 || statErr == nil && time.Since(began) > hearLimit) {
			if err := n.promise(all); err != nil {
				return nil, err
			}
			if waits = mayStartStore(b, infos, port); !errors.Is(waits, ErrStoreWaits) {
				return all, waits
			}
		} else if waits != nil || time.Since(began) > hearLimit {
			if waits == nil {
				waits = tooFew(b.cfg.Name, b.held.get(), b.cfg.nodeNames(), infos)
			}
			if fault := port.says(waits); fault != nil {
				return nil, fault
			}
		}
		if time.Since(told) > quorumTell {
			told = time.Now()
			b.log.Warn().Err(waits).Int("heard of", len(infos)).Msg("waiting for the other nodes: this one has to hear of their tenants, and its store must not take theirs from them")
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-server.Done():
			return nil, errors.Join(ErrServerEnded, server.Err())
		case <-poll.C:
		}
	}
}

// learn adds the tenants that another node has to all, and warns of what should be the
// same there.
func (n *nodes) learn(all []embed.TenantAccount, info *nodeInfo) []embed.TenantAccount {
	for _, t := range info.Tenants {
		at := slices.IndexFunc(all, func(o embed.TenantAccount) bool { return o.Name == t.Name })
		if at >= 0 {
			all[at].MaxBytes = max(all[at].MaxBytes, t.MaxBytes)
			continue
		}
		n.b.log.Warn().Str("tenant", t.Name).Str("node", info.Node).Msg("another node has a tenant that the policy here does not have")
		all = append(all, t)
	}
	n.compare(info)
	warnClock(n.b, info)
	return all
}

// promise writes down the accounts that the store of a node which waits starts with, and
// tells the others of them from then on: a new tenant need not wait until the store is started.
func (n *nodes) promise(all []embed.TenantAccount) error {
	if told := n.heard.Load(); told != nil && len(*told) == len(all) {
		return nil
	}
	if err := rememberTenants(n.b.cfg.State, all); err != nil {
		return err
	}
	told := slices.Clone(all)
	n.heard.Store(&told)
	return nil
}

func hasAccount(list []embed.TenantAccount, name string) bool {
	return slices.ContainsFunc(list, func(t embed.TenantAccount) bool { return t.Name == name })
}

// awaitTenants waits until every node that is in touch has the accounts of set: a
// stream that is made before is refused by the node that lacks its account, and lost.
func (n *nodes) awaitTenants(ctx context.Context, want []embed.TenantAccount) error {
	if n == nil {
		return nil
	}
	// That a node has an account means, to the others, that it has it for good.
	if err := rememberTenants(n.b.cfg.State, embed.Accounts(n.server)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, peerWait)
	defer cancel()
	poll := time.NewTicker(4 * quorumPoll)
	defer poll.Stop()
	for {
		missing := lacking(n.ask(ctx, question{}), want)
		if len(missing) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("broker: no stream of a new tenant before every node knows it: %v; give all nodes the same policy, then reload", missing)
		case <-poll.C:
		}
	}
}

// lacking lists which node lacks which tenant, as "node: tenant". The broker's own account
// is no tenant: see ownStreams.
func lacking(infos []nodeInfo, want []embed.TenantAccount) []string {
	var out []string
	for _, info := range infos {
		for _, t := range want {
			if t.Name != wire.BrokerAccount && !hasAccount(info.Tenants, t.Name) {
				out = append(out, info.Node+": "+t.Name)
			}
		}
	}
	return out
}

// rememberTenants writes down every account that there is, so that none is missing at
// the next start, whatever the policy here says then.
func rememberTenants(dir string, all []embed.TenantAccount) error {
	data, err := json.Marshal(all)
	if err != nil {
		return fmt.Errorf("broker: %w", err)
	}
	return durablefile.Replace(filepath.Join(dir, tenantsFile), data, 0o600)
}

// withRemembered adds the accounts that were written down.
func withRemembered(dir string, accounts []embed.TenantAccount) ([]embed.TenantAccount, error) {
	file := filepath.Join(dir, tenantsFile)
	data, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return accounts, nil
	}
	if err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	var known []embed.TenantAccount
	if err := json.Unmarshal(data, &known); err != nil {
		return nil, fmt.Errorf("broker: %s: %w", file, err)
	}
	for _, t := range known {
		if !hasAccount(accounts, t.Name) {
			accounts = append(accounts, t)
		}
	}
	return accounts, nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/bench"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
)

// policies changes the policy of all nodes again and again: one principal may publish on
// a subject that carries the number of the change, and on no other.
type policies struct {
	base    []byte // without that principal, the same on all nodes
	public  string
	seed    string // file
	version int
}

const newcomer = "newcomer"

func newcomerSubject(version int) string { return fmt.Sprintf("faults.newcomer.v%d", version) }

// open makes the principal's key.
func (p *policies) open(r *clusterRun) error {
	pair, err := nkeys.CreateUser()
	if err != nil {
		return err
	}
	seed, err := pair.Seed()
	if err != nil {
		return err
	}
	if p.public, err = pair.PublicKey(); err != nil {
		return err
	}
	if p.base, err = os.ReadFile(r.c.State(0).Policy); err != nil {
		return err
	}
	p.seed = filepath.Join(r.dir, "newcomer.nk")
	return os.WriteFile(p.seed, seed, 0o600)
}

// next puts the next policy on all nodes, and tells those that run.
func (p *policies) next(r *clusterRun) error {
	if p.version == 0 {
		if err := p.open(r); err != nil {
			return err
		}
	}
	p.version++
	text := fmt.Appendf(nil, "%s  - {name: %s, identities: [{nkey: %s}], publish: [%s]}\n", p.base, newcomer, p.public, newcomerSubject(p.version))
	for i := range r.c.Len() {
		// At once, as an editor does: a node that starts now must not read half of it.
		file := r.c.State(i).Policy
		if err := errors.Join(os.WriteFile(file+".next", text, 0o600), os.Rename(file+".next", file)); err != nil {
			return err
		}
		if !r.c.Running(i) {
			continue
		}
		if err := r.c.Reload(i); err != nil {
			return err
		}
	}
	return nil
}

// policyFault changes the policy in the middle of a fault. In the end every node must go by the
// new one, and none says that another has another.
func policyFault(ctx context.Context, r *clusterRun, kind string, i int, do func(context.Context) error) error {
	if err := r.strike(ctx, kind, r.c.Name(i), do); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, backWait)
	defer cancel()
	for k := range r.c.Len() {
		if err := r.changes.inForce(ctx, r, k); err != nil {
			return fmt.Errorf("%s of %s: %w: the policy of that moment is not in force at %s: %w", kind, r.c.Name(i), errBroken, r.c.Name(k), err)
		}
	}
	return awaitStatus(ctx, r, "all nodes have one policy", func(s *admin.ClusterStatus) bool {
		for k := range s.Nodes {
			if s.Nodes[k].PolicyDiffers || s.Nodes[k].Policy != s.Nodes[0].Policy || s.Nodes[k].Policy == "" {
				return false
			}
		}
		return true
	})
}

// policyDown: a node is not there when the policy changes.
func policyDown(ctx context.Context, r *clusterRun) error {
	i := r.any()
	return policyFault(ctx, r, "policy, down", i, func(ctx context.Context) error {
		r.c.Kill(i)
		if err := r.changes.next(r); err != nil {
			return err
		}
		return r.c.Start(ctx, i)
	})
}

// policyKill: a node is killed while it takes the policy over.
func policyKill(ctx context.Context, r *clusterRun) error {
	i := r.any()
	return policyFault(ctx, r, "policy, kill -9", i, func(ctx context.Context) error {
		if err := r.changes.next(r); err != nil {
			return err
		}
		// Files are read when they have been quiet for a while, and it takes some more.
		if err := linger(ctx, time.Duration(r.rnd.Int64N(int64(400*time.Millisecond)))); err != nil {
			return err
		}
		return r.down(ctx, i)
	})
}

// policyPause: a node stands still when the policy changes.
func policyPause(ctx context.Context, r *clusterRun) error {
	i := r.any()
	return policyFault(ctx, r, "policy, pause", i, func(ctx context.Context) error {
		if err := r.c.Pause(i); err != nil {
			return err
		}
		if err := r.changes.next(r); err != nil {
			return errors.Join(err, r.c.Resume(i))
		}
		if err := errors.Join(linger(ctx, 5*time.Second), r.c.Resume(i)); err != nil {
			return err
		}
		return r.c.AwaitReady(ctx, i)
	})
}

// policyCut: a node is cut off when the policy changes.
func policyCut(ctx context.Context, r *clusterRun) error {
	i := r.any()
	return policyFault(ctx, r, "policy, cut off", i, func(ctx context.Context) error {
		r.c.Isolate(i, brokertest.Link{Cut: true})
		defer r.c.Mend()
		// The node that is cut off has noticed it, every second time.
		if r.rnd.IntN(2) == 0 {
			if err := linger(ctx, linkWait); err != nil {
				return err
			}
		}
		if err := r.changes.next(r); err != nil {
			return err
		}
		if err := linger(ctx, linkWait); err != nil {
			return err
		}
		r.c.Mend()
		return r.c.AwaitReady(ctx, i)
	})
}

// inForce waits until the newest policy is in force at one node: the answers come from
// there, and the one says that what was sent breaks the schema, the other that the grant
// of the policy before is gone.
func (p *policies) inForce(ctx context.Context, r *clusterRun, node int) error {
	at := bench.Address{URL: r.c.URL(node), CA: r.at.CA, Root: r.at.Root, Creds: map[string]string{newcomer: p.seed}}
	try := func(c *client.Client, version int, want error) error {
		try, cancel := context.WithTimeout(ctx, tryFor)
		defer cancel()
		ev := client.NewEvent("faults.entry", []byte(`{}`))
		ev.DataContentType = client.ContentTypeJSON
		_, err := c.Publish(try, newcomerSubject(version), ev)
		if errors.Is(err, want) {
			return nil
		}
		return fmt.Errorf("%s: want %w, got: %w", newcomerSubject(version), want, err)
	}
	for {
		c, err := at.SDK(ctx, newcomer)
		if err == nil {
			err = errors.Join(try(c, p.version, client.ErrSchemaViolation), try(c, p.version-1, client.ErrDenied))
			c.Close()
		}
		if err == nil {
			return nil
		}
		if linger(ctx, 100*time.Millisecond) != nil { // the reload takes a moment
			return err
		}
	}
}

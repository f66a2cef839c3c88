package broker

import (
	"context"
	"path/filepath"

	"github.com/signetbus/signet/broker/backup"
)

// spoolDir is the folder, beside the streams, in which a restore is received.
const spoolDir = "restores"

// startBackups starts what makes and restores backups of tenants.
func (b startup) startBackups() (*backup.Service, error) {
	s, err := backup.New(backup.Config{
		Dir: filepath.Join(b.cfg.State, spoolDir), Node: b.cfg.Name, Root: b.cfg.Keys.Root, Policy: b.Policy, Store: b.store,
		Keys: func() backup.Keys {
			m := b.material.Load()
			return backup.Keys{Ring: m.ring, Document: m.ringDoc, Signer: m.signer}
		},
		Event: func(name, tenant, principal, detail string) { b.trail.Event(name, tenant, principal, "", detail) },
		// The owners of restored consumers may have left the policy since.
		Restored: func(ctx context.Context) { recheckConsumers(ctx, b.Broker) },
		Log:      b.component("backup"),
	})
	if err != nil {
		return nil, err
	}
	b.running("backups", s.Shutdown)
	return s, nil
}

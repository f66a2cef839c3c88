package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/internal/auditlog"
	"github.com/signetbus/signet/signing/keyring"
)

// TestVerifyAgainstASink: the log of the heads is held against what a real sink has of it,
// before and after it was begun anew.
func TestVerifyAgainstASink(t *testing.T) {
	dir, sink := t.TempDir(), filepath.Join(t.TempDir(), "checkpoints")
	const policy = "tenant: demo\ndeadLetter: {maxBytes: 4MiB}\nprincipals:\n  - {name: operator, identities: [{nkey: '{{nkey \"operator\"}}'}], admin: [audit, cluster, log, streams]}\n"
	start := func() *brokertest.Broker {
		return brokertest.New(t, brokertest.Options{Dir: dir, Policy: policy, Change: func(c *broker.Config) { c.Checkpoints.Sink = sink }})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	a := &app{stdout: &bytes.Buffer{}, stderr: &bytes.Buffer{}}
	logged := func(api *admin.API) *admin.AuditHeads {
		t.Helper()
		for {
			said, err := loggedHeads(ctx, a, api, false, "")
			if err == nil && len(said.Logged) > 0 {
				return said
			}
			select {
			case <-ctx.Done():
				t.Fatalf("no head is logged: %+v, %v", said, err)
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	b := start()
	logged(admin.New(b.Client("operator")))
	if err := b.Shutdown(ctx); err != nil { // which writes the sink
		t.Fatal(err)
	}
	b = start()
	api := admin.New(b.Client("operator"))
	logged(api)
	answer, err := api.KeyRing(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := keyring.Parse(answer.Document, b.State.Root, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	kept, err := readKeptLog(t.Context(), a, []string{sink}, ring)
	if err != nil || len(kept) != 1 || kept[0].Size == 0 {
		t.Fatalf("%+v, %v", kept, err)
	}
	report := func() *auditlog.Report {
		t.Helper()
		said, err := kept.ask(ctx, a, api, false)
		if err != nil {
			t.Fatal(err)
		}
		v := auditlog.NewVerifier(said.Tenant, ring)
		if err := errors.Join(kept.expect(v, said), expectLogged(v, said)); err != nil {
			t.Fatal(err)
		}
		return v.Finish()
	}
	said := func(r *auditlog.Report) (out string) {
		for _, o := range r.Open {
			out += o.Why + "\n"
		}
		for i := range r.Faults {
			if r.Faults[i].What == auditlog.FaultLog {
				out += r.Faults[i].String() + "\n"
			}
		}
		return out
	}
	if text := said(report()); text != "" {
		t.Errorf("the log goes on: %s", text)
	}
	if err := api.Log().RestartHeads(ctx); err != nil {
		t.Fatal(err)
	}
	if text := said(report()); !strings.Contains(text, "begun anew") {
		t.Errorf("a new log: %q", text)
	}
	other := filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(other, []byte("nothing\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var usage *usageError
	if _, err := readKeptLog(t.Context(), a, []string{sink, other}, ring); !errors.As(err, &usage) {
		t.Errorf("a file without checkpoints: %v", err)
	}
	none, err := keyring.New(1, time.Now(), time.Now().Add(time.Hour), nil)
	if err == nil {
		_, err = readKeptLog(t.Context(), a, []string{sink}, none)
	}
	var exit *exitError
	if !errors.As(err, &exit) || exit.code != exitRefused {
		t.Errorf("a checkpoint of an unknown key: %v", err)
	}
}

package main

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
	"github.com/signetbus/signet/signing/tlog"
)

// logKeys are the key of a node that signs checkpoints, the keyring that has it, and now.
func logKeys(t *testing.T) (*signing.Signer, *keyring.Ring, time.Time) {
	t.Helper()
	seed, err := nkeys.EncodeSeed(nkeys.PrefixByteServer, bytes.Repeat([]byte{1}, ed25519.SeedSize))
	if err != nil {
		t.Fatal(err)
	}
	signer, err := signing.NewSigner(seed)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	ring, err := keyring.New(1, now.Add(-time.Hour), now.Add(48*time.Hour), []keyring.Key{{
		ID: signer.KeyID(), Alg: keyring.AlgEd25519, Role: keyring.RoleBroker, Principal: "n1", NotBefore: now.Add(-time.Hour), NotAfter: now.Add(48 * time.Hour),
	}})
	if err != nil {
		t.Fatal(err)
	}
	return signer, ring, now
}

// A sink may hold the logs of several tenants, whose streams have one name, several runs
// of a log, parts of checkpoints, and more than fits in memory: the one that is asked for
// is found, or it is said what is there.
func TestReadCheckpoints(t *testing.T) {
	signer, ring, now := logKeys(t)
	begun := now.Truncate(time.Second)
	noteOf := func(tenant, stream string, size int64, start, at time.Time) string {
		cp := tlog.Checkpoint{Origin: tlog.Origin{Cluster: "c", Tenant: tenant, Stream: stream, Start: start}, Size: size, First: 1, Time: at, Created: now}
		raw, err := cp.Sign(signer)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	note := func(tenant string, size int64, start, at time.Time) string {
		return noteOf(tenant, "ORDERS", size, start, at)
	}
	heads := noteOf(wire.BrokerAccount, wire.StreamHeads, 30, begun, now)
	shop, mill, anew := note("shop", 10, begun, now), note("mill", 20, begun, now), note("shop", 3, begun.Add(time.Minute), now)
	run := &tlog.Origin{Cluster: "c", Tenant: "shop", Stream: "ORDERS", Start: begun}
	for _, tt := range []struct {
		name, file, of string
		run            *tlog.Origin
		size           int64
		says           string
	}{
		{"the only one", shop, "", nil, 10, ""},
		{"beside the heads of the audit trail", shop + heads, "", nil, 10, ""},
		{"the heads of the audit trail", shop + heads, "SIGNET/HEADS", nil, 30, ""},
		{"nothing but the heads", heads, "", nil, 30, ""},
		{"of two tenants", mill + shop, "", nil, 0, "checkpoints of 2 logs"},
		{"of one of them", shop + mill, "shop/ORDERS", nil, 10, ""},
		{"of none of them", shop + mill, "else/ORDERS", nil, 0, "mill/ORDERS, shop/ORDERS"},
		{"of this run", shop + anew, "shop/ORDERS", run, 10, ""},
		{"of the last run", shop + anew, "shop/ORDERS", nil, 3, ""},
		{"torn", mill + shop + mill[:100], "shop/ORDERS", nil, 10, ""},
		{"none", "nothing", "", nil, 0, "holds no checkpoints"},
		{"from tomorrow", note("shop", 5, begun, now.Add(24*time.Hour)), "", nil, 0, tlog.ErrFuture.Error()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "sink")
			if err := os.WriteFile(file, []byte(tt.file), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := readCheckpoints(t.Context(), file, tt.of, tt.run, ring)
			var usage *usageError
			switch {
			case tt.says == "" && (err != nil || got.newest.Size != tt.size):
				t.Errorf("got %+v, %v", got, err)
			case tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says) && (!errors.As(err, &usage) || !strings.Contains(usage.fix, tt.says))):
				t.Errorf("got %v, want %q", err, tt.says)
			}
		})
	}
}

// What was not verified is said apart from what was, and changes the verdict.
func TestLogReportSaysWhatIsNotVerified(t *testing.T) {
	for _, tt := range []struct {
		report logReport
		says   string
	}{
		{logReport{First: 1, Last: 40, Compared: 20, Aged: 20}, "AS LOGGED: ORDERS, sequences 1 to 40\n"},
		{logReport{First: 1, Last: 40, Compared: 20, Aged: 15, Unproven: 5, Doubt: "no record"}, "NOT ALL VERIFIED: ORDERS, sequences 1 to 40: what is stored is as logged, but 5 are gone that may have been cut off\n"},
	} {
		var out bytes.Buffer
		printLogReport(&app{stdout: &out}, "ORDERS", &tt.report)
		if !strings.HasPrefix(out.String(), tt.says) || (tt.report.Unproven > 0) != strings.Contains(out.String(), "5 sequences are no longer stored: no record") {
			t.Errorf("got %s", out.String())
		}
	}
}

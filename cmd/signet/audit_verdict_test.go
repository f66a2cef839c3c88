package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/internal/auditlog"
)

// What -o json leaves out, a script takes for settled: that an export was judged by a keyring
// that has expired, and by which.
func TestVerdictOnExportAsJSON(t *testing.T) {
	now := time.Date(2026, 11, 23, 3, 0, 0, 0, time.UTC)
	x := &auditlog.Export{Keyring: 7, Within: 6, Closed: now, Expires: now.Add(time.Second), Report: &auditlog.Report{Tenant: "shop", OK: true}}
	for _, tt := range []struct {
		name           string
		now            time.Time
		expired, clock bool
	}{
		{"in force", now, false, false},
		{"expired", x.Expires, true, false},
		{"an hour behind", now.Add(-time.Hour), false, true},
	} {
		doc, err := json.Marshal(verdictOnExport(x, tt.now))
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			Tenant         string
			OK             bool
			KeyringVersion uint64
			KeyringExpires time.Time
			KeyringExpired bool
			Export         *exportOrigin
		}
		if err := json.Unmarshal(doc, &got); err != nil || got.Export == nil {
			t.Fatalf("%s: %s %v", tt.name, doc, err)
		}
		if got.Tenant != "shop" || !got.OK || got.KeyringVersion != 7 || !got.KeyringExpires.Equal(x.Expires) || got.KeyringExpired != tt.expired {
			t.Errorf("%s: %s", tt.name, doc)
		}
		if got.Export.KeyringVersion != 6 || !got.Export.Closed.Equal(now) || (got.Export.Clock != "") != tt.clock {
			t.Errorf("%s: %s", tt.name, doc)
		}
	}
}

func TestProvenUnderAnExpiredKeyring(t *testing.T) {
	began := time.Now().Add(-10 * time.Hour).UTC().Truncate(time.Second)
	l := logged{t: t, began: began, recorded: began.Add(time.Hour), stored: began.Add(2 * time.Hour), held: 1}
	l.old, l.new = l.signer(1), l.signer(2)
	var err error
	if l.root, err = nkeys.EncodeSeed(nkeys.PrefixByteOperator, bytes.Repeat([]byte{9}, ed25519.SeedSize)); err != nil {
		t.Fatal(err)
	}
	pair, err := nkeys.FromSeed(l.root)
	if err != nil {
		t.Fatal(err)
	}
	root, err := pair.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	v, err := verifiedProof(l.proof(l.old), root, nil)
	if err != nil {
		t.Fatal(err)
	}
	expires := began.Add(100 * time.Hour)
	for now, expired := range map[time.Time]bool{expires.Add(-time.Second): false, expires: true} {
		doc, err := json.Marshal(provenOf(v, true, now))
		if err != nil || !strings.Contains(string(doc), `"keyringVersion":1,"keyringExpires":"`+expires.Format(time.RFC3339)+`"`) || strings.Contains(string(doc), `"keyringExpired":true`) != expired {
			t.Errorf("expired %v: %s %v", expired, doc, err)
		}
	}
}

package main

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/internal/auditlog"
	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
	"github.com/signetbus/signet/signing/tlog"
)

// Whoever gives signet verify another file of Signet is told which it is, and one of a
// format to come is told that.
func TestVerifyNamesTheWrongFile(t *testing.T) {
	for doc, want := range map[string]string{
		"{\n  \"format\": \"" + tlog.ProofFormat + "\"}":                   "printed again",
		"{\n \"format\": \"signet/log-proof/v2\"\n}":                       `format "signet/log-proof/v2"`,
		`{"payloadType":"` + signing.ReceiptType + `"}`:                    "--receipt",
		`{"payloadType":"` + keyring.PayloadType + `"}`:                    "keys show",
		`{"payloadType":"` + auditlog.HeadType + `"}`:                      "audit verify --head",
		`{"audit":"signet-export","v":1}`:                                  "audit verify FILE",
		`{"specversion":"1.0","id":1}`:                                     "not a structured CloudEvent",
		`{"format":7}`:                                                     "not a structured CloudEvent",
		`["signet/log-proof/v1"]`:                                          "not a structured CloudEvent",
		`{"format":"signet/log-proof/` + strings.Repeat("9", 1<<16) + `"}`: "this release knows",
	} {
		p := new(checker).check(1, []byte(doc))
		if p.OK || !strings.Contains(p.Reason, want) || len(p.Reason) > 400 {
			t.Errorf("%.80q: ok %v, %.500q; want %q", doc, p.OK, p.Reason, want)
		}
	}
}

// A broker's clock that is an hour ahead of the verifier's, or the verifier's an hour
// behind, is said, of events and of receipts; an hour the other way is nothing but age.
func TestVerifyTellsOfAWrongClock(t *testing.T) {
	pair, err := nkeys.CreateServer()
	if err != nil {
		t.Fatal(err)
	}
	seed, _ := pair.Seed()
	signer, err := signing.NewSigner(seed)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC().Truncate(time.Second)
	ring, err := keyring.New(1, now.Add(-3*time.Hour), now.Add(3*time.Hour), []keyring.Key{{
		ID: signer.KeyID(), Alg: keyring.AlgEd25519, Role: keyring.RoleBroker, Principal: "n1",
		NotBefore: now.Add(-3 * time.Hour), NotAfter: now.Add(3 * time.Hour),
	}})
	if err != nil {
		t.Fatal(err)
	}
	held := func() *keyring.Ring { return ring }
	v := &checker{verifier: signing.NewVerifier(held), producers: signing.NewProducerVerifier(held), ring: ring}
	for off, told := range map[time.Duration]bool{-time.Hour: false, 0: false, time.Minute: false, time.Hour: true} {
		at := now.Add(off)
		e := &cloudevent.Event{
			ID: []byte("1"), Source: []byte("/shop/checkout"), Type: []byte("t"), ContentType: []byte("text/plain"),
			Time: []byte(at.Format(time.RFC3339)), Data: []byte("x"),
		}
		e.SetExt([]byte(wire.AttrRecordedTime), signing.AppendRecordedTime(nil, at))
		e.SetExt([]byte(wire.AttrAuthID), []byte("shop/checkout"))
		e.SetExt([]byte(wire.AttrAuthType), []byte(wire.DefaultAuthType))
		var b signing.Batch
		if b.Add(e, []byte("orders.x")) < 0 {
			t.Fatal("not attested")
		}
		digest := b.LastDigest()
		b.Sign(signer)
		e.SetExt([]byte(wire.AttrAttestation), b.AppendAttestation(nil, 0))
		e.SetExt([]byte(wire.AttrNATSSubject), []byte("orders.x"))
		p := v.check(1, cloudevent.AppendJSON(nil, e))
		if !p.OK || strings.Contains(p.Clock, "ahead of the clock here") != told {
			t.Errorf("event, %s: ok %v (%s), clock %q", off, p.OK, p.Reason, p.Clock)
		}
		doc, err := signer.SignReceipt(signing.Receipt{
			Node: "n1", Tenant: "shop", Principal: "shop/checkout", Subject: "orders.x", Stream: "ORDERS", Sequence: 1,
			ID: "1", Source: "/shop/checkout", Type: "t", ContentType: "text/plain", Recorded: at.Format(time.RFC3339),
			Event: digest[:], Time: at, Policy: strings.Repeat("0", 64),
		})
		if err != nil {
			t.Fatal(err)
		}
		if r := proveReceipt(1, doc, ring, "", nil); !r.OK || strings.Contains(r.Clock, "ahead of the clock here") != told {
			t.Errorf("receipt, %s: ok %v (%s), clock %q", off, r.OK, r.Reason, r.Clock)
		}
		if out, err := json.Marshal(p); err != nil || strings.Contains(string(out), `"clock"`) != told {
			t.Errorf("%s: %s, %v", off, out, err)
		}
	}
}

func TestExportFacts(t *testing.T) {
	now := time.Date(2026, 11, 23, 3, 0, 0, 0, time.UTC)
	x := &auditlog.Export{Keyring: 7, Within: 7, Closed: now, Expires: now.Add(time.Second)}
	if got := exportFacts(x, now); got != "closed 2026-11-23T03:00:00Z, keyring version 7" {
		t.Errorf("in force: %q", got)
	}
	if got := exportFacts(x, x.Expires); !strings.Contains(got, "expired 2026-11-23") || !strings.Contains(got, "may have revoked keys") {
		t.Errorf("expired: %q", got)
	}
	if got := exportFacts(x, now.Add(-time.Hour)); !strings.Contains(got, "1h0m0s ahead of the clock here") {
		t.Errorf("an hour behind: %q", got)
	}
	x.Within = 6
	if got := exportFacts(x, now); got != "closed 2026-11-23T03:00:00Z, keyring version 7 (in the export: 6)" {
		t.Errorf("judged by a later one: %q", got)
	}
}

// A certificate that is not valid at the time of this machine points to the clock, not
// to the file of the CA.
func TestConnectFixOfAClock(t *testing.T) {
	err := fmt.Errorf("tls: failed to verify certificate: %w", x509.CertificateInvalidError{Cert: &x509.Certificate{}, Reason: x509.Expired})
	if got := connectFix(err); !strings.Contains(got, "clock") {
		t.Errorf("%v: %q", err, got)
	}
	if got := connectFix(fmt.Errorf("tls: failed to verify certificate: %w", x509.UnknownAuthorityError{})); !strings.Contains(got, "CA file") {
		t.Errorf("unknown authority: %q", got)
	}
}

// What is to be done about a keyring that is not believed is said with it, and what a file
// claims of an event that does not verify is cut short.
func TestVerifyHintsAreShort(t *testing.T) {
	for err, want := range map[error]string{
		fmt.Errorf("x: %w", keyring.ErrExpired):      "the clock here",
		fmt.Errorf("x: %w", keyring.ErrBadSignature): "another broker",
		fmt.Errorf("x: %w", keyring.ErrMalformed):    "signet keys ring",
	} {
		var out strings.Builder
		a := &app{stderr: &out}
		code := a.report(&exitError{code: exitRefused, err: err, fix: ringFix(err)})
		if code != exitRefused || !strings.Contains(out.String(), "  fix  ") || !strings.Contains(out.String(), want) || strings.Count(out.String(), "\n") != 2 {
			t.Errorf("%v: %d, %q; want %q", err, code, out.String(), want)
		}
	}
	huge := strings.Repeat("ü", 1<<20)
	for _, show := range []func(*app, *proof){printProofLine, func(a *app, p *proof) { printProof(a, p, nil) }} {
		var out strings.Builder
		show(&app{stdout: &out}, &proof{Number: 1, Reason: "bad", ID: huge, Subject: huge})
		if out.Len() > 1024 || !strings.Contains(out.String(), "(2097152 bytes)") {
			t.Errorf("%d bytes: %.400q", out.Len(), out.String())
		}
	}
}

// Who has too many connections is not sent to look at the network.
func TestConnectFixOfALimit(t *testing.T) {
	for _, err := range []error{nats.ErrMaxConnectionsExceeded, fmt.Errorf("connect: %w", nats.ErrMaxConnectionsExceeded)} {
		if got := connectFix(err); !strings.Contains(got, "signet status --throttled") {
			t.Errorf("%v: %q", err, got)
		}
	}
}

// Who pushes a keyring that has expired is told to look at the clock, and what to sign.
func TestPushOfAnExpiredKeyringSaysWhatToDo(t *testing.T) {
	pair, err := nkeys.CreateOperator()
	if err != nil {
		t.Fatal(err)
	}
	seed, _ := pair.Seed()
	root, _ := pair.PublicKey()
	now := time.Now()
	ring, err := keyring.New(1, now.Add(-2*time.Hour), now.Add(-time.Hour), nil)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := ring.Sign(seed)
	if err != nil {
		t.Fatal(err)
	}
	var refused *exitError
	_, err = parseRing(new(app), doc, "keyring.json", root, now)
	if !errors.Is(err, keyring.ErrExpired) || !errors.As(err, &refused) || exitCode(err) != exitRefused {
		t.Fatal(err)
	}
	for _, want := range []string{"clock", "signet keys rotate KEY --keyring keyring.json"} {
		if !strings.Contains(refused.fix, want) {
			t.Errorf("%q does not say %q", refused.fix, want)
		}
	}
	if _, err := parseRing(new(app), doc, "keyring.json", root, time.Time{}); err != nil {
		t.Errorf("an expired one cannot be shown: %v", err)
	}
}

package attack

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
)

// reporter is a signer of the role policy, and a keyring that has it.
func reporter(t testing.TB, change func(*keyring.Key)) (*signing.Signer, *keyring.Ring) {
	t.Helper()
	pair, err := nkeys.CreateAccount()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := pair.Seed()
	if err != nil {
		t.Fatal(err)
	}
	s, err := signing.NewSigner(seed)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	k := keyring.Key{ID: s.KeyID(), Alg: keyring.AlgEd25519, Role: keyring.RolePolicy, Principal: "shop/root", NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)}
	if change != nil {
		change(&k)
	}
	ring, err := keyring.New(1, now.Add(-time.Hour), now.Add(time.Hour), []keyring.Key{k})
	if err != nil {
		t.Fatal(err)
	}
	return s, ring
}

func someReport() *Report {
	r := &Report{Signet: "test", Broker: "bus", Node: "n1", By: "shop/root", Begun: time.Now()}
	list := List()
	r.Finish([]Result{
		{Attack: list[0], Outcome: Outcome{Verdict: Refused, Code: "Authorization Violation"}}, {Attack: list[1], Outcome: Outcome{Verdict: NotApplicable, Detail: "why"}},
	})
	return r
}

// TestReportIsCovered: every byte of a report is under its signature, and it is taken only
// from a key of the role policy of the principal that it names, of its time.
func TestReportIsCovered(t *testing.T) {
	s, ring := reporter(t, nil)
	doc, err := someReport().Sign(s)
	if err != nil {
		t.Fatal(err)
	}
	r, key, err := VerifyReport(doc, ring)
	if err != nil || r.Verdict != Refused || r.Counts[Refused] != 1 || key.ID != s.KeyID() {
		t.Fatalf("got %+v, %v", r, err)
	}
	for i := range doc {
		bad := bytes.Clone(doc)
		bad[i] ^= 1
		if _, _, err := VerifyReport(bad, ring); err == nil {
			t.Fatalf("byte %d changed, and nobody saw it", i)
		}
	}
	for name, change := range map[string]func(*keyring.Key){
		"another principal": func(k *keyring.Key) { k.Principal = "shop/other" },
		"a producer's key":  func(k *keyring.Key) { k.Role = keyring.RoleProducer },
		"a key that ended":  func(k *keyring.Key) { k.NotBefore, k.NotAfter = k.NotBefore.Add(-time.Hour), k.NotBefore },
	} {
		s, ring := reporter(t, change)
		doc, err := someReport().Sign(s)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := VerifyReport(doc, ring); !errors.Is(err, signing.ErrKeyNotValid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	other, err := s.SignStatement(signing.PolicyType, []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := VerifyReport(other, ring); !errors.Is(err, signing.ErrStatement) {
		t.Errorf("a policy passed for a report: %v", err)
	}
}

// TestReportContradictsItself: a report whose verdict or counts are not those of its
// results is none, whoever has signed it.
func TestReportContradictsItself(t *testing.T) {
	s, ring := reporter(t, nil)
	for name, change := range map[string]func(*Report){
		"verdict": func(r *Report) { r.Results[1].Verdict = Succeeded },
		"counts":  func(r *Report) { r.Counts[Refused] = 80 },
		"twice":   func(r *Report) { r.Results[1].Number = 1 },
		"version": func(r *Report) { r.Version = 2 },
		"empty":   func(r *Report) { r.Results, r.Counts = nil, map[Verdict]int{} },
	} {
		r := someReport()
		change(r)
		doc, err := r.Sign(s)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := VerifyReport(doc, ring); !errors.Is(err, ErrReport) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzReport: what is decoded is encoded again to the same bytes.
func FuzzReport(f *testing.F) {
	r := someReport()
	s, ring := reporter(f, nil)
	doc, err := r.Sign(s)
	if err != nil {
		f.Fatal(err)
	}
	payload, _, err := signing.VerifyAttackReport(doc, ring)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(payload)
	f.Add([]byte(`{"version":1,"verdict":"refused","counts":{},"results":null}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		r, err := decodeReport(payload)
		if err != nil {
			return
		}
		if r.Version != reportVersion || r.Verdict != Worst(r.Results) {
			t.Errorf("decoded %+v", r)
		}
	})
}

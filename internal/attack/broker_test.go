package attack_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/broker/gate"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/internal/attack"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
)

// operator is who applies policies in the policy of `signet dev`.
const operator = "demo/operator"

// policySigner enters a key of the role policy into the keyring.
func policySigner(t *testing.T, b *brokertest.Broker) *signing.Signer {
	t.Helper()
	pair, err := nkeys.CreateAccount()
	check(t, err)
	public, err := pair.PublicKey()
	check(t, err)
	seed, err := pair.Seed()
	check(t, err)
	s, err := signing.NewSigner(seed)
	check(t, err)
	b.ChangeKeyring(func(keys []keyring.Key) []keyring.Key {
		return append(keys, keyring.Key{
			ID: public, Alg: keyring.AlgEd25519, Role: keyring.RolePolicy, Principal: operator, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		})
	})
	return s
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func filesOf(t *testing.T, b *brokertest.Broker) []policy.File {
	t.Helper()
	_, files, err := policy.LoadFiles([]string{b.State.Policy})
	check(t, err)
	return files
}

// TestBrokerRefuses: against the broker of `signet dev` every attack is refused, by the
// control that it is on, and the policy is as it was; twice, since the streams of the first
// run are there at the second.
func TestBrokerRefuses(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	dir := t.TempDir()
	b := brokertest.New(t, brokertest.Options{Dir: dir, Change: func(c *broker.Config) {
		c.Authentication.Enrolment.CA = filepath.Join(dir, "ca")
		c.Authentication.Issuers = []broker.IssuerConfig{forgedIssuer(t)}
		c.Gate.ConnectionRate, c.Gate.FailedLogins = gate.DefaultPerIPRate, gate.DefaultFailedLogins
	}})
	before := b.Policy().Digest()
	c := b.Client("operator")
	signer := policySigner(t, b)
	for round := range 2 {
		s := attack.NewStage(admin.PolicyOf(admin.New(c)), signer, operator)
		check(t, s.SetUp(ctx, filesOf(t, b), time.Minute))
		attacks := attack.List()
		if round > 0 {
			var err error
			attacks, err = attack.Pick([]int{1, 14, 28, 51})
			check(t, err)
		}
		r, err := s.Open(ctx, b.URL(), b.TLS())
		check(t, err)
		results := attack.Run(ctx, r, attacks, nil)
		r.Close()
		check(t, s.TearDown(ctx))
		refused := 0
		for _, res := range results {
			if res.Verdict != attack.Refused {
				t.Errorf("%d %s: %s %s %s", res.Number, res.Name, res.Verdict, res.Code, res.Detail)
				continue
			}
			refused++
		}
		t.Logf("round %d: %d of %d attacks were refused", round+1, refused, len(results))
		if got := b.Policy().Digest(); got != before {
			t.Errorf("the policy in force is %s, was %s", got, before)
		}
	}
	if _, err := os.Stat(b.State.Policy); err != nil {
		t.Error(err)
	}
}

// forgedIssuer takes the issuer that the forged tokens name, with another key by the name of
// theirs: so they are stopped by their signature and algorithm, and not by there being no issuer.
func forgedIssuer(t *testing.T) broker.IssuerConfig {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	point, err := key.PublicKey.Bytes()
	check(t, err)
	part := base64.RawURLEncoding.EncodeToString
	file := filepath.Join(t.TempDir(), "keys.json")
	check(t, os.WriteFile(file, fmt.Appendf(nil, `{"keys":[{"kty":"EC","use":"sig","alg":"ES256","crv":"P-256","kid":"attack","x":%q,"y":%q}]}`, part(point[1:33]), part(point[33:])), 0o600))
	return broker.IssuerConfig{
		Issuer: "https://attack.invalid", Audiences: []string{"signet"}, Kubernetes: true, Keys: broker.IssuerKeys{File: file},
		Tenants: []broker.IssuerTenant{{Name: "demo", Subjects: []string{"system:serviceaccount:attack:*"}}},
	}
}

// newStage is a stage of a new broker, with the operator's connection.
func newStage(t *testing.T) (*brokertest.Broker, applying, func() *attack.Stage) {
	t.Helper()
	b := brokertest.New(t, brokertest.Options{})
	api := admin.PolicyOf(admin.New(b.Client("operator")))
	signer := policySigner(t, b)
	return b, applying{api, signer}, func() *attack.Stage { return attack.NewStage(api, signer, operator) }
}

// applying is who may apply policies.
type applying struct {
	admin.Policy
	signer *signing.Signer
}

// TestKilledRun: what a run leaves that was killed is taken away by the next one, and by
// Restore, over the files of the nodes and over a policy that was applied.
func TestKilledRun(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	b, api, stage := newStage(t)
	before, files := b.Policy().Digest(), filesOf(t, b)
	check(t, stage().SetUp(ctx, files, time.Minute)) // and no more: killed
	if b.Policy().Tenant(attack.Tenant) == nil {
		t.Fatal("the stage is not in force")
	}
	s := stage()
	if err := s.SetUp(ctx, nil, time.Minute); !errors.Is(err, attack.ErrFilesUnknown) {
		t.Errorf("without the files of the nodes: %v", err)
	}
	s = stage()
	check(t, s.SetUp(ctx, files, time.Minute))
	if s.Left == "" || s.Before != before {
		t.Errorf("left %q, before %s, want %s", s.Left, s.Before, before)
	}
	check(t, s.TearDown(ctx))
	inForce(ctx, t, b, api, before, true)

	check(t, stage().SetUp(ctx, files, time.Minute))
	restored(ctx, t, stage(), true)
	inForce(ctx, t, b, api, before, true)
	restored(ctx, t, stage(), false)

	apply(ctx, t, api, files)
	check(t, stage().SetUp(ctx, nil, time.Minute))
	restored(ctx, t, stage(), true)
	inForce(ctx, t, b, api, before, false)
}

// overtaken is an administrator whom another one overtakes once, right after a look at the
// policy in force.
type overtaken struct {
	admin.Policy
	by func()
}

func (o *overtaken) Show(ctx context.Context) (*admin.PolicyShow, error) {
	shown, err := o.Policy.Show(ctx)
	if by := o.by; by != nil {
		o.by = nil
		by()
	}
	return shown, err
}

// TestStageUndoesNothing: a policy that somebody applies while a stage is set up or taken
// down, which may revoke somebody, stays in force.
func TestStageUndoesNothing(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	b, api, _ := newStage(t)
	files := filesOf(t, b)
	own := &overtaken{Policy: api.Policy}
	s := attack.NewStage(own, api.signer, operator)
	other := func(comment string) func() {
		return func() {
			apply(ctx, t, api, []policy.File{{Name: "policy.yaml", Text: append(bytes.Clone(files[0].Text), comment...)}})
		}
	}
	own.by = other("# another\n")
	if err := s.SetUp(ctx, files, time.Minute); !errors.Is(err, client.ErrConflict) {
		t.Errorf("overtaken in setting up: %v, want ErrConflict", err)
	}
	digest := b.Policy().Digest()
	check(t, s.TearDown(ctx))
	inForce(ctx, t, b, api, digest, false)

	check(t, s.SetUp(ctx, nil, time.Minute))
	own.by = other("# and another\n")
	if err := s.TearDown(ctx); !errors.Is(err, client.ErrConflict) {
		t.Errorf("overtaken in taking down: %v, want ErrConflict", err)
	}
	if got := b.Policy(); got.Digest() == s.During || got.Digest() == digest || got.Tenant(attack.Tenant) != nil {
		t.Errorf("in force is %s: the other policy did not stay", got.Digest())
	}
}

// interrupted is an administrator to whom something happens while a policy is on its way.
type interrupted struct {
	admin.Policy
	put func(ctx context.Context, send func(context.Context) (*admin.PolicyPut, error)) (*admin.PolicyPut, error)
}

func (i *interrupted) Put(ctx context.Context, document []byte, lockOut bool) (*admin.PolicyPut, error) {
	send := func(ctx context.Context) (*admin.PolicyPut, error) { return i.Policy.Put(ctx, document, lockOut) }
	if i.put == nil {
		return send(ctx)
	}
	put := i.put
	i.put = nil
	return put(ctx, send)
}

// TestStageInterrupted: a run that ends while its policy is on its way, by Ctrl-C or by an
// answer that gets lost, leaves the policy as it was.
func TestStageInterrupted(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	b, api, _ := newStage(t)
	before, files := b.Policy().Digest(), filesOf(t, b)

	cut, stop := context.WithCancel(ctx)
	own := &interrupted{Policy: api.Policy, put: func(ctx context.Context, send func(context.Context) (*admin.PolicyPut, error)) (*admin.PolicyPut, error) {
		stop()
		return send(ctx)
	}}
	s := attack.NewStage(own, api.signer, operator)
	if err := s.SetUp(cut, files, time.Minute); err != nil {
		t.Errorf("it was on its way: %v", err)
	}
	check(t, s.TearDown(ctx))
	inForce(ctx, t, b, api, before, true)

	done := make(chan error, 1)
	own.put = func(_ context.Context, send func(context.Context) (*admin.PolicyPut, error)) (*admin.PolicyPut, error) {
		time.AfterFunc(time.Second, func() {
			_, err := send(ctx)
			done <- err
		})
		return nil, context.DeadlineExceeded
	}
	s = attack.NewStage(own, api.signer, operator)
	if err := s.SetUp(ctx, files, time.Minute); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no answer: %v", err)
	}
	check(t, s.TearDown(ctx))
	check(t, <-done)
	inForce(ctx, t, b, api, before, true)
}

func restored(ctx context.Context, t *testing.T, s *attack.Stage, want bool) {
	t.Helper()
	left, err := s.Restore(ctx)
	if err != nil || (left != "") != want {
		t.Errorf("restored %q, %v", left, err)
	}
}

func inForce(ctx context.Context, t *testing.T, b *brokertest.Broker, api applying, digest string, files bool) {
	t.Helper()
	shown, err := api.Show(ctx)
	check(t, err)
	if b.Policy().Digest() != digest || shown.Digest != digest || shown.Files != files {
		t.Errorf("in force is %s (%s), files %v, want %s, %v", b.Policy().Digest(), shown.Digest, shown.Files, digest, files)
	}
}

// apply puts files in force as a version of their own.
func apply(ctx context.Context, t *testing.T, api applying, files []policy.File) {
	t.Helper()
	bundle, err := policy.ParseFiles(files)
	check(t, err)
	packed, err := policy.Pack(files)
	check(t, err)
	shown, err := api.Show(ctx)
	check(t, err)
	doc, err := api.signer.SignPolicy(signing.PolicyVersion{
		Version: shown.Next, Broker: shown.Broker, Digest: bundle.Digest(), Before: shown.Digest, By: operator, Time: time.Now(), Files: packed,
	})
	check(t, err)
	_, err = api.Put(ctx, doc, false)
	check(t, err)
}

// TestStageRefuses: a stage is not set up over a policy that it does not know, or that has
// its names; and takes down nothing that is not its own.
func TestStageRefuses(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	b, api, stage := newStage(t)
	before, files := b.Policy().Digest(), filesOf(t, b)
	for name, given := range map[string][]policy.File{"none": nil, "others": {{Name: "policy.yaml", Text: []byte("tenant: demo\n")}}} {
		s := stage()
		if err := s.SetUp(ctx, given, time.Minute); !errors.Is(err, attack.ErrFilesUnknown) {
			t.Errorf("%s: %v", name, err)
		}
		check(t, s.TearDown(ctx))
	}
	inForce(ctx, t, b, api, before, true)

	// Somebody applies a policy while a run is on: it stays.
	s := stage()
	check(t, s.SetUp(ctx, files, time.Minute))
	changed := []policy.File{{Name: "policy.yaml", Text: append(bytes.Clone(files[0].Text), []byte("\n---\ntenant: attack\nstreams:\n  - {name: ATTACK, subjects: [attack.>], maxBytes: 1MiB}\n")...)}}
	apply(ctx, t, api, changed)
	during := b.Policy().Digest()
	check(t, s.TearDown(ctx))
	inForce(ctx, t, b, api, during, false)

	s = stage()
	if err := s.SetUp(ctx, nil, time.Minute); !errors.Is(err, attack.ErrTenantTaken) {
		t.Errorf("over a tenant of its name: %v", err)
	}
	check(t, s.TearDown(ctx))
	inForce(ctx, t, b, api, during, false)
}

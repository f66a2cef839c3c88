package attack

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/signing"
)

// What the throw-away policy is made of. The tenants have fixed names, since a stream that
// a policy no longer declares stays: the next run finds the same ones.
const (
	Tenant      = "attack"
	OtherTenant = "attack-other"

	stream     = "ATTACK"
	bucket     = "attack"      // the victim's
	openBucket = "attack-open" // the attacker may write it

	stageFile  = "signet-attack.yaml" // in the policy, while a run lasts
	noteBegin  = "signet attack begins"
	noteEnd    = "signet attack ends"
	overFiles  = ", over the policy files of the nodes"
	stageGrace = 5 * time.Minute // after which the principals lapse by themselves
)

// Errors of Stage.
var (
	// ErrTenantTaken: the policy has tenants of its own by the names of the throw-away ones.
	ErrTenantTaken = errors.New("attack: the policy has a tenant " + Tenant + " or " + OtherTenant + " of its own, which are the names of the throw-away ones")
	// ErrFilesUnknown: the policy in force is that of the files of the nodes, and they were
	// not given, or are others.
	ErrFilesUnknown = errors.New("attack: the policy in force comes from the policy files of the nodes, which the broker does not give away")
	// ErrUnsettled: the throw-away policy was sent, no answer came, and it is not in force yet.
	ErrUnsettled = errors.New("attack: the broker has not said whether it takes the throw-away policy, and may still do so")
)

// How long TearDown looks for a throw-away policy of which the broker has not said whether
// it took it.
const (
	settleTime = 30 * time.Second
	settleLook = 500 * time.Millisecond
)

// Policies is what a stage needs of admin.Policy.
type Policies interface {
	Show(ctx context.Context) (*admin.PolicyShow, error)
	Get(ctx context.Context, version uint64) ([]byte, error)
	Put(ctx context.Context, document []byte, lockOut bool) (*admin.PolicyPut, error)
}

// Stage is the throw-away part of the policy, in force from SetUp to TearDown.
type Stage struct {
	api    Policies
	signer *signing.Signer
	by     string

	base   []policy.File // what was in force before
	files  bool          // it was the files of the nodes
	unsure bool          // a version was sent, and the broker has not said what came of it
	creds  map[string]nkeys.KeyPair

	Broker string // name of the cluster, or of the broker
	Before string // digest of the policy that was in force
	During string
	Left   string // told by SetUp: what an earlier run has left and this one takes away
}

// NewStage prepares a stage. The signer has a key of the role policy of the principal by
// (tenant/name), who has the grant admin policy, and cluster. Nothing changes yet.
func NewStage(api Policies, signer *signing.Signer, by string) *Stage {
	return &Stage{api: api, signer: signer, by: by}
}

// SetUp applies the policy in force with the throw-away tenants. files are those of the
// nodes, where the policy in force comes from them. Whatever it returns, TearDown must be
// called: an error does not say that nothing was applied.
//
// Errors: ErrTenantTaken, ErrFilesUnknown, and those of the calls; of a policy that the
// broker would not take they say why.
func (s *Stage) SetUp(ctx context.Context, files []policy.File, lasts time.Duration) error {
	shown, err := s.api.Show(ctx)
	if err != nil {
		return err
	}
	s.Broker = shown.Broker
	if err := s.findBase(ctx, shown, files); err != nil {
		return err
	}
	if err := s.credentials(); err != nil {
		return err
	}
	text, err := s.text(time.Now().Add(lasts + stageGrace))
	if err != nil {
		return err
	}
	note := noteBegin
	if s.files {
		note += overFiles
	}
	s.During, err = s.apply(ctx, shown, append(slices.Clone(s.base), policy.File{Name: stageFile, Text: []byte(text)}), note)
	return err
}

// findBase finds the files of the policy that is to be in force afterwards: those in force,
// without what an earlier run has left.
func (s *Stage) findBase(ctx context.Context, shown *admin.PolicyShow, files []policy.File) error {
	left := strings.HasPrefix(shown.Applied.Note, noteBegin) && !shown.Files
	switch {
	case shown.Files || left && strings.HasSuffix(shown.Applied.Note, overFiles):
		set, err := policy.ParseFiles(files)
		want := shown.Digest
		if left {
			want = shown.Applied.Before
		}
		if len(files) == 0 || err != nil || set.Digest() != want {
			return ErrFilesUnknown
		}
		s.base, s.files, s.Before = files, true, want
	default:
		var err error
		if s.base, err = s.applied(ctx, shown.Applied.Version); err != nil {
			return err
		}
		s.base = slices.DeleteFunc(s.base, func(f policy.File) bool { return left && f.Name == stageFile })
		s.Before = shown.Digest
	}
	if left {
		s.Left = fmt.Sprintf("version %d, which a run left at %s", shown.Applied.Version, shown.Applied.Time.Format(time.RFC3339))
	}
	bundle, err := policy.ParseFiles(s.base)
	if err != nil {
		return err
	}
	set, err := policy.Compile(bundle)
	if err != nil {
		return err
	}
	if left {
		s.Before = set.Digest()
	}
	if set.Tenant(Tenant) != nil || set.Tenant(OtherTenant) != nil {
		return ErrTenantTaken
	}
	return nil
}

// Restore takes away what a run has left that was cut off, and says what that was; empty:
// nothing.
func (s *Stage) Restore(ctx context.Context) (string, error) {
	shown, err := s.api.Show(ctx)
	if err != nil || shown.Files || !strings.HasPrefix(shown.Applied.Note, noteBegin) {
		return "", err
	}
	left := fmt.Sprintf("version %d, of %s", shown.Applied.Version, shown.Applied.Time.Format(time.RFC3339))
	if strings.HasSuffix(shown.Applied.Note, overFiles) {
		_, err := s.apply(ctx, shown, nil, noteEnd)
		return left, err
	}
	files, err := s.applied(ctx, shown.Applied.Version)
	if err != nil {
		return left, err
	}
	_, err = s.apply(ctx, shown, slices.DeleteFunc(files, func(f policy.File) bool { return f.Name == stageFile }), noteEnd)
	return left, err
}

// applied are the files of a version.
func (s *Stage) applied(ctx context.Context, version uint64) ([]policy.File, error) {
	doc, err := s.api.Get(ctx, version)
	if err != nil {
		return nil, err
	}
	v, err := signing.PeekPolicy(doc) // its own broker says that it is in force
	if err != nil {
		return nil, err
	}
	return policy.Unpack(v.Files)
}

// TearDown puts the policy back in force that was before SetUp, if that has got as far as
// to change it. It may be called again after an error.
//
// Errors: ErrUnsettled, and those of the calls.
func (s *Stage) TearDown(ctx context.Context) error {
	if s.base == nil {
		return nil
	}
	shown, err := s.settled(ctx)
	if err != nil {
		return err
	}
	if !begun(shown) {
		return nil // nothing was applied, or somebody has applied something since
	}
	files := s.base
	if s.files {
		files = nil
	}
	digest, err := s.apply(ctx, shown, files, noteEnd)
	if err == nil && digest != "" && digest != s.Before {
		err = fmt.Errorf("attack: the policy in force is %s, and was %s", digest, s.Before)
	}
	return err
}

// begun reports whether the policy in force is a throw-away one.
func begun(shown *admin.PolicyShow) bool {
	return strings.HasPrefix(shown.Applied.Note, noteBegin) && !shown.Files
}

// settled is the policy in force. Where the answer to SetUp got lost it waits for some time
// for the throw-away one: the broker may still be at it.
func (s *Stage) settled(ctx context.Context) (*admin.PolicyShow, error) {
	look := time.NewTicker(settleLook)
	defer look.Stop()
	for end := time.Now().Add(settleTime); ; {
		shown, err := s.api.Show(ctx)
		switch {
		case err != nil || !s.unsure || begun(shown):
			return shown, err
		case time.Now().After(end):
			return nil, ErrUnsettled
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return nil, ErrUnsettled
		}
	}
}

// apply signs the version behind shown, which files were made from, and puts it in force at
// all nodes. Without files the files of the nodes hold again. Where somebody has applied
// another one since shown, the broker refuses it: it would undo that, a revocation even.
func (s *Stage) apply(ctx context.Context, shown *admin.PolicyShow, files []policy.File, note string) (string, error) {
	v := signing.PolicyVersion{By: s.by, Time: time.Now(), Note: note}
	if files != nil {
		set, err := policy.ParseFiles(files)
		if err != nil {
			return "", err
		}
		if v.Files, err = policy.Pack(files); err != nil {
			return "", err
		}
		v.Digest = set.Digest()
	}
	v.Version, v.Broker, v.Before = shown.Next, shown.Broker, shown.Digest
	doc, err := s.signer.SignPolicy(v)
	if err != nil {
		return "", err
	}
	// Once it is on its way it may come into force, so a caller that gives up waits for the
	// answer all the same: who tears down has to know.
	wait, cancel := context.WithoutCancel(ctx), context.CancelFunc(func() {})
	if end, ok := ctx.Deadline(); ok {
		wait, cancel = context.WithDeadline(wait, end)
	}
	defer cancel()
	put, err := s.api.Put(wait, doc, false)
	var told *client.Error
	s.unsure = err != nil && (!errors.As(err, &told) || told.Code == 0)
	if err != nil {
		return "", err
	}
	for node, fault := range put.Waiting {
		return v.Digest, fmt.Errorf("attack: version %d is not in force at %s: %s", put.Version, node, fault)
	}
	return v.Digest, nil
}

func (s *Stage) credentials() error {
	s.creds = map[string]nkeys.KeyPair{}
	for who := range principals {
		kp, err := nkeys.CreateUser()
		if err != nil {
			return err
		}
		s.creds[who] = kp
	}
	return nil
}

// text is the throw-away policy. What it stores is 3 MiB at most, and goes after four minutes.
func (s *Stage) text(until time.Time) (string, error) {
	out := stageText
	for who, kp := range s.creds {
		public, err := kp.PublicKey()
		if err != nil {
			return "", err
		}
		out = strings.ReplaceAll(out, "{{"+who+"}}", "identities: [{nkey: "+public+"}]")
	}
	return strings.ReplaceAll(out, "{{until}}", "until: "+until.UTC().Format(time.RFC3339)), nil
}

const stageText = `# The throw-away tenants of signet attack. The run takes them away again.
tenant: ` + Tenant + `
streams:
  - {name: ` + stream + `, subjects: [attack.>], maxBytes: 1MiB, maxAge: 4m}
ephemeral: [attackeph.>]
kv:
  - {bucket: ` + bucket + `, maxBytes: 64KiB, ttl: 4m}
  - {bucket: ` + openBucket + `, maxBytes: 64KiB, ttl: 4m}
deadLetter: {maxBytes: 64KiB, maxAge: 4m}
audit: {maxBytes: 1MiB, maxAge: 7d}
limits:
  attack-slow: {messages: 2/s, burst: 1s, exceed: reject}
schemas:
  - {name: attack-checked, version: 1, text: '{"type":"object","required":["id"],"properties":{"id":{"type":"integer"}}}'}
subjects:
  - {match: attack.attacker.checked, schema: attack-checked, onFailure: [reject]}
  - {match: attack.attacker.small, maxPayload: 64B, onFailure: [reject]}
  - {match: attack.attacker.signed, require: producer, onFailure: [reject]}
  - {match: attack.attacker.sealed, encrypted: true, onFailure: [reject]}
principals:
  - name: victim
    {{victim}}
    {{until}}
    publish: [attack.victim.>, attack.shared.>]
    subscribe: [attack.>, attackeph.>]
    serve: [attackrpc.*]
    discover: true
    kv: {read: [` + bucket + `], write: [` + bucket + `]}
  - name: attacker
    {{attacker}}
    {{until}}
    publish: [attack.attacker.>, attack.shared.>, {grant: attack.lapsed.>, until: 2020-01-01T00:00:00Z}]
    subscribe: [attack.attacker.>, attack.shared.>]
    call: [attackrpc.*]
    kv: {write: [` + openBucket + `]}
  - {name: clerk, {{clerk}}, {{until}}, publish: [attack.clerk.>], types: [attack.clerk*, attack.message]}
  - {name: slow, {{slow}}, {{until}}, publish: [attack.slow.>], limit: attack-slow}
  - {name: flooder, {{flooder}}, {{until}}, publish: [attack.shared.>], subscribe: [attack.shared.>]}
  - {name: lapsed, {{lapsed}}, until: 2020-01-01T00:00:00Z, publish: [attack.lapsed.>]}
  - {name: disabled, {{disabled}}, disabled: true, publish: [attack.disabled.>]}
---
tenant: ` + OtherTenant + `
streams:
  - {name: ` + stream + `, subjects: [attack.>], maxBytes: 256KiB, maxAge: 4m}
deadLetter: {maxBytes: 64KiB, maxAge: 4m}
audit: {maxBytes: 1MiB, maxAge: 7d}
quota: {connections: 4}
principals:
  - {name: stranger, {{stranger}}, {{until}}, publish: [attack.>], subscribe: [attack.>]}
`

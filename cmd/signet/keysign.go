package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nkeys"
	"github.com/spf13/cobra"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/signing/keyring"
)

// Words of --role.
const (
	roleNode      = "node"
	roleProducer  = "producer"
	roleRecipient = "recipient"
	rolePolicy    = "policy"
)

// ringRole is a role as the command line names it.
type ringRole struct {
	role   string // in the keyring
	create func() (nkeys.KeyPair, error)
	prefix nkeys.PrefixByte // of a key that is given; 0: the keyring says
}

var ringRoles = map[string]ringRole{
	roleNode: {keyring.RoleBroker, nkeys.CreateServer, nkeys.PrefixByteServer},
	// An account's seed: no client takes it for a credential to connect with.
	roleProducer:  {keyring.RoleProducer, nkeys.CreateAccount, 0},
	roleRecipient: {keyring.RoleRecipient, nkeys.CreateCurveKeys, nkeys.PrefixByteCurve},
	rolePolicy:    {keyring.RolePolicy, nkeys.CreateAccount, nkeys.PrefixByteAccount},
}

func roleOf(k *keyring.Key) ringRole { return ringRoles[roleWord(k.Role)] }

// signed is what a change of a keyring prints.
type signed struct {
	PublicKey string    `json:"publicKey"`
	Role      string    `json:"role"`
	Principal string    `json:"principal"`
	Keyring   string    `json:"keyring"`
	Version   uint64    `json:"version"`
	Expires   time.Time `json:"expires"`
	Seed      string    `json:"seed,omitempty"` // file
	From      time.Time `json:"notBefore"`
	Until     time.Time `json:"notAfter"`
	RevokedAt time.Time `json:"revokedAt,omitzero"`
	Replaces  string    `json:"replaces,omitempty"`  // key that ends
	Ends      time.Time `json:"replacesAt,omitzero"` // when it ends
}

func (a *app) printSigned(s *signed, notes ...string) error {
	if a.jsonOut() {
		return a.printJSON(s)
	}
	fmt.Fprintln(a.stdout, s.PublicKey)
	a.note("keyring %s is version %d now, good until %s", s.Keyring, s.Version, stamp(s.Expires))
	for _, n := range notes {
		a.note("%s", n)
	}
	return nil
}

func keysRootCommand(a *app) *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "root --out FILE", Short: "make the root key, which signs keyrings", Args: cobra.NoArgs, DisableFlagsInUseLine: true,
		Long:    "Makes the seed of a root key in a new file of mode 0600 and prints its public key,\nwhich readers pin. Whoever has the seed decides which keys everybody believes: make\nit on a machine without a network, and keep it there.",
		Example: "  signet keys root --out root.seed > root.pub",
		RunE: a.verb(func(context.Context, []string) error {
			public, err := newSeed(out, nkeys.CreateOperator)
			if err != nil {
				return err
			}
			if a.jsonOut() {
				return a.printJSON(map[string]string{"publicKey": public, "kind": "root", "file": out})
			}
			fmt.Fprintln(a.stdout, public)
			a.note("seed in %s: keep it offline; a copy in another place, too", out)
			return nil
		}),
	}
	cmd.Flags().StringVar(&out, "out", "", "file for the seed; must not exist")
	_ = cmd.MarkFlagRequired("out") // fails only for an unknown flag
	return cmd
}

type issueFlags struct {
	ringEdit
	out, key, role, principal, from string
	sources, subjects               []string
	life                            time.Duration
}

func keysIssueCommand(a *app) *cobra.Command {
	var p issueFlags
	p.mayMake = true
	cmd := &cobra.Command{
		Use:   "issue --principal NAME --keyring FILE --root-seed FILE (--out SEED | --key PUBLIC)",
		Short: "enter a key of a node, a producer or a recipient", Args: cobra.NoArgs, DisableFlagsInUseLine: true,
		Long: `Enters a key into a keyring and signs a new version of it with the root seed. It
needs files only, no broker; signet keys push brings the new version to the nodes.
With --out the seed is made here, in a new file of mode 0600; with --key it is
elsewhere, and only its public key is known here. A keyring that is not there is begun.

A node attests what it has seen; its principal is its name (name in signet.yaml). A
producer signs its own events; its principal is TENANT/NAME. A recipient reads the
payloads that are encrypted on its subjects, which must be named. With a
key of the role policy its principal, TENANT/NAME, applies policies for the whole broker.`,
		Example: "  signet keys issue --principal n4 --out n4.seed --keyring keyring.json --root-seed root.seed\n" +
			"  signet keys issue --role producer --principal shop/checkout --key ADK2... --for 90d --keyring keyring.json --root-seed root.seed\n" +
			"  signet keys issue --role recipient --principal shop/billing --subject 'orders.>' --out billing.recipient.seed --keyring keyring.json --root-seed root.seed",
		RunE: a.verb(func(context.Context, []string) error { return issueKey(a, &p, time.Now()) }),
	}
	p.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&p.out, "out", "", "make the seed in this file, which must not exist")
	f.StringVar(&p.key, "key", "", "public key whose seed is elsewhere")
	f.StringVar(&p.role, "role", roleNode, "node, producer, recipient or policy")
	f.StringVar(&p.principal, "principal", "", "who holds it: the name of the node, or TENANT/NAME of the others")
	f.StringArrayVar(&p.sources, "source", nil, "ce-source that a producer may sign, exact or ending in * (repeat it; default: all that its policy grants)")
	f.StringArrayVar(&p.subjects, "subject", nil, "subject that a producer may sign on (default: as --source) or a recipient read, NATS wildcards (repeat it)")
	f.StringVar(&p.from, "from", "", "valid from, RFC 3339 (default: an hour ago, as clocks differ)")
	f.Var(newSpan(&p.life, defaultKeyLife), "for", "valid for, from then on")
	_ = cmd.MarkFlagRequired("principal")                                                                                                    // fails only for an unknown flag
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions([]string{roleNode, roleProducer, roleRecipient, rolePolicy}, noFiles)) // as above
	return cmd
}

func issueKey(a *app, p *issueFlags, now time.Time) error {
	role, ok := ringRoles[p.role]
	if !ok {
		return &usageError{msg: fmt.Sprintf("--role %q: want node, producer, recipient or policy", p.role)}
	}
	if isNode := p.role == roleNode; isNode == strings.Contains(p.principal, "/") {
		return &usageError{msg: fmt.Sprintf("--principal %q: want TENANT/NAME for a producer, recipient or applier of policies, and the name of a node without a slash", p.principal)}
	}
	if p.role == roleRecipient && (len(p.subjects) == 0 || len(p.sources) > 0) {
		return &usageError{msg: "a recipient needs --subject, the subjects whose payloads it may read, and has no --source", fix: "--subject 'orders.>'"}
	}
	from := now.Add(-clockMargin)
	if p.from != "" {
		var err error
		if from, err = time.Parse(time.RFC3339, p.from); err != nil {
			return &usageError{msg: fmt.Sprintf("--from %q: want a time such as 2026-01-31T15:04:05Z", p.from)}
		}
	}
	id, undo, err := newKey(p.out, p.key, role.create, role.prefix)
	if err != nil {
		return err
	}
	alg := keyring.AlgEd25519
	if p.role == roleRecipient {
		alg = keyring.AlgX25519
	}
	k := keyring.Key{ID: id, Alg: alg, Role: role.role, Principal: p.principal, NotBefore: from, NotAfter: from.Add(p.life), Sources: p.sources, Subjects: p.subjects}
	ring, err := p.sign(now, func(_ *keyring.Ring, c *keyring.Change) error { return c.Issue(k) })
	if err != nil {
		undo()
		return err
	}
	return a.printSigned(&signed{
		PublicKey: id, Role: p.role, Principal: p.principal, Keyring: p.file, Version: ring.Version(), Expires: ring.Expires(),
		Seed: p.out, From: k.NotBefore, Until: k.NotAfter,
	}, "next: signet keys push "+p.file)
}

type rotateFlags struct {
	ringEdit
	out, key      string
	life, overlap time.Duration
}

func keysRotateCommand(a *app) *cobra.Command {
	var p rotateFlags
	cmd := &cobra.Command{
		Use:   "rotate KEY|PRINCIPAL --keyring FILE --root-seed FILE (--out SEED | --key PUBLIC)",
		Short: "put a new key beside one that will end", Args: exactly("KEY"), DisableFlagsInUseLine: true,
		Long: `Enters a new key for the holder of a key and lets the old one end when the overlap is
over. KEY is a public key, or the name of a holder who has one key that is valid.

A node goes over to its new key by itself, two minutes into the second half of the
overlap, when all nodes have the keyring: push the keyring, and put the new seed beside
the old one on the node, as node.next.seed beside node.seed. It needs no restart. With
an overlap of less than 6m20s some events that their producers signed may be refused
meanwhile. A producer may use the new key once the keyring is pushed. Nothing that the
old key signed is lost.`,
		Example: "  signet keys rotate n2 --out node.next.seed --keyring keyring.json --root-seed root.seed\n" +
			"  signet keys rotate shop/checkout --out checkout.event.seed --overlap 7d --keyring keyring.json --root-seed root.seed",
		RunE: a.verb(func(_ context.Context, args []string) error { return rotateKey(a, &p, args[0], time.Now()) }),
	}
	p.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&p.out, "out", "", "make the seed in this file, which must not exist")
	f.StringVar(&p.key, "key", "", "public key whose seed is elsewhere")
	f.Var(newSpan(&p.life, defaultKeyLife), "for", "the new key is valid for, from now on")
	f.Var(newSpan(&p.overlap, defaultOverlap), "overlap", "how long the old key stays good")
	return cmd
}

func rotateKey(a *app, p *rotateFlags, which string, now time.Time) error {
	if p.overlap < minOverlap || p.life <= p.overlap {
		return &usageError{msg: fmt.Sprintf("--overlap %s: want %s or more, and less than --for", p.overlap, minOverlap)}
	}
	var s *signed
	undo := func() {}
	ring, err := p.sign(now, func(ring *keyring.Ring, c *keyring.Change) error {
		old, err := pickKey(ring, which, now)
		if err != nil {
			return err
		}
		role := roleOf(old)
		id, remove, err := newKey(p.out, p.key, role.create, role.prefix)
		if err != nil {
			return err
		}
		undo = remove
		from, end := now.Add(-clockMargin), now.Add(p.overlap)
		if old.Role == keyring.RoleBroker {
			from = now.Add(p.overlap / 2) // readers have the keyring by then
		}
		s = &signed{
			PublicKey: id, Principal: old.Principal, Seed: p.out, From: from, Until: now.Add(p.life),
			Replaces: old.ID, Ends: end, Role: roleWord(old.Role),
		}
		return c.Rotate(old.ID, id, from, s.Until, end)
	})
	if err != nil {
		undo()
		return err
	}
	if k, ok := ring.ByID(s.Replaces); ok {
		s.Ends = k.NotAfter // it may end sooner by itself
	}
	s.Keyring, s.Version, s.Expires = p.file, ring.Version(), ring.Expires()
	notes := []string{fmt.Sprintf("%s of %s ends at %s", s.Replaces, s.Principal, stamp(s.Ends)), "next: signet keys push " + p.file}
	if s.Role == roleNode {
		notes = append(notes, turnNote(a, s))
	}
	return a.printSigned(s, notes...)
}

// turnNote is what is to be done with the seed of a node's next key. It warns where both
// keys are not good for long enough together: what its producer signed before the turn
// and what one whose clock is ahead signs after it would not both be taken.
func turnNote(a *app, s *signed) string {
	bring := fmt.Sprintf("and bring the new seed to %s as node.next.seed, beside node.seed", s.Principal)
	if both := s.Ends.Sub(s.From.Truncate(time.Second)); both < policy.KeyTurn {
		a.note("warning: the old and the new key are good together for %s, so that some signed events may be refused (40900) when %s goes over; none are from %s on, with --overlap %s, while the old key lasts as long",
			both, s.Principal, policy.KeyTurn, 2*policy.KeyTurn)
		return fmt.Sprintf("%s, before %s", bring, stamp(s.Ends))
	}
	return fmt.Sprintf("%s: it goes over to it at %s or soon after", bring, stamp(s.From.Add(policy.ReplayPast)))
}

func roleWord(role string) string {
	if role == keyring.RoleBroker {
		return roleNode
	}
	return role
}

func keysRevokeCommand(a *app) *cobra.Command {
	var p ringEdit
	var at string
	cmd := &cobra.Command{
		Use:   "revoke KEY|PRINCIPAL --keyring FILE --root-seed FILE [--at TIME]",
		Short: "believe a key no longer, from a time on", Args: exactly("KEY"), DisableFlagsInUseLine: true,
		Long: `Revokes a key: what says that it was signed at the time or later is refused by
everybody, what was signed before stays good. Whoever stole a key can claim an earlier
time: give the last time at which it was surely in good hands, or --at start, which
refuses all that the key ever signed. It can be moved to an earlier time, never back.`,
		Example: "  signet keys revoke n2 --keyring keyring.json --root-seed root.seed\n" +
			"  signet keys revoke NDKX... --at 2026-01-31T15:04:05Z --keyring keyring.json --root-seed root.seed",
		RunE: a.verb(func(_ context.Context, args []string) error { return revokeKey(a, &p, args[0], at, time.Now()) }),
	}
	p.flags(cmd)
	cmd.Flags().StringVar(&at, "at", "", "span such as 2h for two hours ago, RFC 3339 time, or start (default: now)")
	return cmd
}

func revokeKey(a *app, p *ringEdit, which, at string, now time.Time) error {
	when, err := since("--at", at, now)
	switch {
	case at == "start":
	case err != nil:
		return err
	case at == "":
		when = now
	}
	var id string
	ring, err := p.sign(now, func(ring *keyring.Ring, c *keyring.Change) error {
		k, err := pickKey(ring, which, now)
		if err != nil {
			return err
		}
		if id = k.ID; at == "start" {
			when = k.NotBefore
		}
		return c.Revoke(id, when)
	})
	if err != nil {
		return err
	}
	k, _ := ring.ByID(id)
	notes := []string{fmt.Sprintf("what %s of %s signed from %s on is refused by everybody who has this version", id, k.Principal, stamp(k.RevokedAt))}
	if k.Role == keyring.RoleRecipient {
		notes[0] = fmt.Sprintf("nothing is encrypted to %s of %s by a producer who has this version; what it could read before, it still can", id, k.Principal)
	}
	next := "next: signet keys push " + p.file
	if k.Role == keyring.RoleBroker && !validKeyOf(ring, k.Principal, now) {
		next += " --cut-off " + k.Principal + " (it has no other key, and attests nothing from then on)"
	}
	return a.printSigned(&signed{
		PublicKey: id, Role: roleWord(k.Role), Principal: k.Principal, Keyring: p.file, Version: ring.Version(), Expires: ring.Expires(),
		From: k.NotBefore, Until: k.NotAfter, RevokedAt: k.RevokedAt,
	}, append(notes, next)...)
}

func validKeyOf(ring *keyring.Ring, principal string, now time.Time) bool {
	return slices.ContainsFunc(ring.Keys(), func(k keyring.Key) bool { return k.Principal == principal && k.ValidAt(now) })
}

// pickKey finds a key by its public key, or by a holder who has exactly one that is
// valid.
func pickKey(ring *keyring.Ring, which string, now time.Time) (*keyring.Key, error) {
	if k, ok := ring.ByID(which); ok {
		return &k, nil
	}
	var valid []keyring.Key
	var ids []string
	for _, k := range ring.Keys() {
		if k.Principal == which && k.ValidAt(now) {
			valid, ids = append(valid, k), append(ids, k.ID)
		}
	}
	switch len(valid) {
	case 1:
		return &valid[0], nil
	case 0:
		return nil, &usageError{msg: fmt.Sprintf("the keyring has no key %q, and nobody of this name with a valid one", which), fix: "signet keys show FILE lists them"}
	}
	return nil, &usageError{msg: fmt.Sprintf("%s has %d valid keys: name one", which, len(valid)), fix: "one of " + strings.Join(ids, ", ")}
}

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
	"github.com/signetbus/signet/signing/tlog"
)

func verifyCommand(a *app) *cobra.Command {
	var ringFile, root, receipts, event, attacks string
	var want producerDemand
	cmd := &cobra.Command{
		Use: "verify FILE|- [--keyring FILE --root O...] [--producer-only]", Short: "prove who published an event, and that it is unchanged",
		Args: func(cmd *cobra.Command, args []string) error {
			if receipts != "" || attacks != "" {
				return exactly()(cmd, args)
			}
			return exactly("FILE")(cmd, args)
		}, DisableFlagsInUseLine: true,
		Long: `Verifies saved events: one structured CloudEvent as JSON, or one a line, with the
attributes natssubject and attestation (signet sub -o json writes them; an event
with dssematerial or attestationmaterial in place of attestation is read too). It
says who published it, on which subject and when, by which broker key, and which
producer signed it, if one did. Any changed byte of data or attributes makes it
fail, with exit code 3. So does an event that only its producer has signed: nobody
says that it was published, or when. --producer-only accepts it. --require-producer
makes an event fail that its producer has not signed.

A proof of signet prove is verified too: that what it holds stands in the log of its
stream, and in a range that none is missing. It has its own keyring; --root is enough.

--receipt verifies signed acknowledgements instead (signet pub --signed-ack writes
them): that the broker had stored an event, where and when. With --event each must be
of an event in that file, byte for byte. --attack-report verifies the report of a run
of signet attack.

With --keyring and --root it needs no network and no context. Otherwise both come
from the context; a context without a keyring file asks its broker.`,
		Example: `  signet verify evidence.ndjson
  signet verify event.json --keyring keyring.json --root OBQ7...
  signet verify proof.json --root OBQ7...
  signet sub 'orders.>' --since start --count 1 -o json | signet verify -
  signet verify --receipt receipt.json --event event.json --keyring keyring.json --root OBQ7...`,
		RunE: a.verb(func(ctx context.Context, args []string) error {
			if want != (producerDemand{}) && (attacks != "" || receipts != "") {
				return want.notFor("an acknowledgement or a report")
			}
			switch {
			case attacks != "":
				return verifyAttackReport(ctx, a, attacks, ringFile, root)
			case receipts != "":
				return verifyReceipts(ctx, a, receipts, event, ringFile, root)
			case event != "":
				return &usageError{msg: "--event is for --receipt; an event alone is the argument: signet verify FILE"}
			}
			return verifyFile(ctx, a, args[0], ringFile, root, want)
		}),
	}
	cmd.Flags().BoolVar(&want.required, "require-producer", false, "refuse events without a signature of their producer")
	cmd.Flags().BoolVar(&want.alone, "producer-only", false, "accept events that bear their producer's signature and no broker's attestation")
	cmd.Flags().StringVar(&ringFile, "keyring", "", "signed keyring (default: of the context, else fetched)")
	cmd.Flags().StringVar(&receipts, "receipt", "", "file with signed acknowledgements, one a line, in place of events")
	cmd.Flags().StringVar(&attacks, "attack-report", "", "file with the report of a run of signet attack, in place of events")
	cmd.Flags().StringVar(&event, "event", "", "with --receipt: file with the events that the receipts must be of")
	cmd.Flags().StringVar(&root, "root", "", "public root key (O...) that signed the keyring, or a file with it (default: of the context)")
	return cmd
}

// producerDemand says what events must bear, and may lack.
type producerDemand struct {
	required bool // a signature of their producer
	alone    bool // that is enough: no attestation is needed
}

// notFor: what is verified has no such signatures, or is not judged by them.
func (d producerDemand) notFor(what string) error {
	flag := "--require-producer"
	if d.alone {
		flag = "--producer-only"
	}
	return &usageError{msg: flag + " is for events, and not for " + what, fix: "signet sub -o json, or signet dlq show -o json, writes the event itself"}
}

func verifyFile(ctx context.Context, a *app, file, ringFile, root string, want producerDemand) error {
	in, err := openEvidence(ctx, a, file)
	if err != nil {
		return err
	}
	defer in.Close()
	head := bufio.NewReader(in)
	if start, _ := head.Peek(len(tlog.ProofFormat) + 64); tlog.IsProof(start) {
		if want != (producerDemand{}) {
			return want.notFor("a proof of signet prove")
		}
		doc, err := io.ReadAll(io.LimitReader(head, tlog.MaxProofBytes+1))
		if err != nil {
			return err
		}
		return verifyProofFile(ctx, a, doc, ringFile, root)
	}
	ring, err := fileRing(ctx, a, ringFile, root)
	if err != nil {
		return err
	}
	held := func() *keyring.Ring { return ring }
	v := &checker{verifier: signing.NewVerifier(held), producers: signing.NewProducerVerifier(held), ring: ring, want: want}
	good, bad, one, err := verifyAll(ctx, a, head, v)
	if err != nil {
		return err
	}
	switch {
	case good+bad == 0:
		return &usageError{msg: file + " holds no event"}
	case good+bad > 1 && !a.jsonOut():
		fmt.Fprintf(a.stdout, "%d verified, %d not\n", good, bad)
	case one != nil && !a.jsonOut():
		printProof(a, one, ring)
	}
	if bad > 0 {
		return &exitError{code: exitRefused}
	}
	return nil
}

// verifyAll verifies each event of in. When there is exactly one, it is returned
// and not yet printed.
func verifyAll(ctx context.Context, a *app, in io.Reader, v *checker) (good, bad int, one *proof, err error) {
	dec := json.NewDecoder(bufio.NewReader(in))
	for n := 1; ctx.Err() == nil; n++ {
		var raw json.RawMessage
		if err := dec.Decode(&raw); errors.Is(err, io.EOF) {
			return good, bad, one, nil
		} else if err != nil {
			if one != nil && !a.jsonOut() { // what was verified counts, whatever stands behind it
				printProofLine(a, one)
			}
			return good, bad, nil, &usageError{msg: fmt.Sprintf("event %d is not JSON: %v", n, err)}
		}
		p := v.check(n, raw)
		if p.OK {
			good++
		} else {
			bad++
		}
		if a.jsonOut() {
			if err := a.printLine(p); err != nil {
				return good, bad, nil, err
			}
			continue
		}
		switch n {
		case 1:
			one = p
			continue
		case 2:
			printProofLine(a, one)
			one = nil
		}
		printProofLine(a, p)
	}
	return good, bad, one, ctx.Err()
}

// loadRing finds the keyring: flags first, then the context, then its broker.
func loadRing(ctx context.Context, a *app, file, root string) (*keyring.Ring, error) {
	if root != "" {
		var err error
		if root, err = rootKey(root); err != nil {
			return nil, err
		}
	}
	if file == "" || root == "" {
		saved, err := a.loadContext()
		if err != nil {
			return nil, err
		}
		if root == "" {
			root = saved.RootKey
		}
		if file == "" {
			file = saved.KeyringFile
		}
		if file == "" {
			_, ring, err := fetchRing(ctx, a, root)
			return ring, err
		}
	}
	doc, err := smallFile(file, keyring.MaxDocumentBytes)
	if err != nil {
		return nil, err
	}
	ring, err := keyring.Parse(doc, root, time.Now())
	if err != nil {
		return nil, &exitError{code: exitRefused, err: fmt.Errorf("the keyring %s cannot be trusted: %w", file, err), fix: ringFix(err)}
	}
	return ring, nil
}

// fileRing is loadRing for signet verify, which can do without a context.
func fileRing(ctx context.Context, a *app, file, root string) (*keyring.Ring, error) {
	if file == "" || root == "" {
		var u *usageError
		if _, err := a.loadContext(); errors.As(err, &u) {
			u.fix = "signet verify FILE --keyring keyring.json --root O... needs no context"
			return nil, err
		}
	}
	return loadRing(ctx, a, file, root)
}

// ringFix says what to do about a keyring in a file that is not believed.
func ringFix(err error) string {
	switch {
	case errors.Is(err, keyring.ErrExpired):
		return "is the clock here right? signet keys ring --out FILE saves the keyring that is in force, which still has the old keys"
	case errors.Is(err, keyring.ErrBadSignature):
		return "the keyring is of another broker, or --root is: ask the owner of the root key for it"
	}
	return "signet keys ring --out FILE saves one; it counts byte for byte as it was written"
}

// proof is what is known about one event. Unless OK, only Number, Reason and
// what the event itself claims are set.
type proof struct {
	Number    int        `json:"number"`
	OK        bool       `json:"ok"`
	Reason    string     `json:"reason,omitempty"`
	Principal string     `json:"principal,omitempty"`
	AuthType  string     `json:"authType,omitempty"`
	Subject   string     `json:"natsSubject,omitempty"`
	Recorded  *time.Time `json:"recorded,omitempty"`
	ID        string     `json:"id,omitempty"`
	Source    string     `json:"source,omitempty"`
	Type      string     `json:"type,omitempty"`
	Key       string     `json:"key,omitempty"`
	Batch     int        `json:"batch,omitempty"`
	Producer  string     `json:"producer,omitempty"`    // principal of the key that signed the event
	EventKey  string     `json:"producerKey,omitempty"` // that key
	Bare      bool       `json:"notAttested,omitempty"` // the producer's signature holds, and there is no other
	Clock     string     `json:"clock,omitempty"`       // it was recorded in the future of the clock here
	Bytes     int        `json:"bytes"`
}

// checker verifies events one after the other.
type checker struct {
	verifier  *signing.Verifier
	producers *signing.ProducerVerifier
	ring      *keyring.Ring
	scratch   cloudevent.Scratch

	want producerDemand
}

func (v *checker) check(n int, raw []byte) *proof {
	p := &proof{Number: n}
	var e cloudevent.Event
	if err := e.FromJSON(raw, &v.scratch); err != nil {
		if p.Reason = otherFile(raw); p.Reason == "" {
			p.Reason = "not a structured CloudEvent: " + plain(err.Error())
		}
		return p
	}
	p.ID, p.Source, p.Type, p.Bytes = string(e.ID), string(e.Source), string(e.Type), len(e.Data)
	p.Subject = string(e.Get(wire.AttrNATSSubject))
	if p.Subject == "" {
		p.Reason = "it has no natssubject attribute, so what was signed cannot be rebuilt"
		return p
	}
	e.DelExt(wire.AttrNATSSubject)
	// The broker's word and the producer's are two statements, and what is there must hold.
	producers := len(e.Get(wire.AttrDSSE)) > 0
	var err error
	claim := new(signing.Claim)
	switch {
	case len(e.Get(wire.AttrAttestation)) > 0:
		var att signing.Attestation
		if att, err = v.verifier.Verify(&e, p.Subject); err == nil {
			p.Principal, p.AuthType, p.Recorded, p.Key, p.Batch = att.Principal, att.AuthType, &att.RecordedTime, att.KeyID, att.Batch
		}
	case len(e.Get(wire.AttrExpanded)) > 0:
		err = v.checkDSSE(p, &e, e.Get(wire.AttrExpanded))
	case !producers:
		err = signing.ErrMissing
	case !errors.Is(v.producers.Read(claim, &e), signing.ErrKeyNotValid):
		// The producer's is the only one.
		p.Bare, err = true, alone(&e, claim)
	default:
		producers, err = false, v.checkDSSE(p, &e, e.Get(wire.AttrDSSE))
	}
	if err == nil && producers {
		err = v.checkProducer(p, &e)
	}
	if err != nil {
		p.Reason, p.Bare = reason(err), false
		return p
	}
	if v.want.required && p.Producer == "" {
		p.Reason = "it is not signed by its producer: nobody but the broker says what it is"
		return p
	}
	if p.Recorded != nil {
		p.Clock = aheadOfClock(*p.Recorded, time.Now())
	}
	if p.OK = !p.Bare || v.want.alone; !p.OK {
		p.Reason = "it is signed by its producer " + p.Producer + " and NOT attested: no broker says that it was published, or when (--producer-only accepts it)"
	}
	return p
}

// alone says whether the producer's signature may stand alone on e: nothing on it may
// look like a broker's word, and without a trusted time a key that was revoked proves
// nothing, whatever time the event claims.
func alone(e *cloudevent.Event, claim *signing.Claim) error {
	for _, name := range []string{wire.AttrAuthID, wire.AttrAuthType, wire.AttrExpanded} {
		if len(e.Get(name)) > 0 {
			return fmt.Errorf("it has %s, which only a broker sets, and no attestation: it was taken away, or the event is made up", name)
		}
	}
	for _, k := range claim.Keys() {
		if !k.RevokedAt.IsZero() {
			return fmt.Errorf("its producer key %s was revoked, and no broker says that it was signed before", k.ID)
		}
	}
	return nil
}

// checkDSSE verifies the standard form of an attestation, as bridges write it.
func (v *checker) checkDSSE(p *proof, e *cloudevent.Event, material []byte) error {
	if err := signing.VerifyDSSE(string(material), e, p.Subject, v.ring); err != nil {
		return err
	}
	p.Principal, p.AuthType = string(e.Get(wire.AttrAuthID)), string(e.Get(wire.AttrAuthType))
	if t, ok := cloudevent.ParseTime(e.Get(wire.AttrRecordedTime)); ok {
		p.Recorded = &t
	}
	return nil
}

func (v *checker) checkProducer(p *proof, e *cloudevent.Event) error {
	sig, err := v.producers.Verify(e, p.Subject)
	if err != nil {
		return fmt.Errorf("producer signature: %w", err)
	}
	p.Producer, p.EventKey = sig.Principal, sig.KeyID
	if p.Bare {
		p.Recorded = &sig.RecordedTime
	}
	return nil
}

// reason words a failed verification for people.
func reason(err error) string {
	switch {
	case errors.Is(err, signing.ErrBadSignature):
		return "the signature does not match: data or attributes were changed after they were signed"
	case errors.Is(err, signing.ErrMissing):
		return "it has neither an attestation nor a producer signature"
	case errors.Is(err, signing.ErrUnknownKey):
		return "it is signed by a key that is not in the keyring"
	case errors.Is(err, signing.ErrNoKeyring):
		return "the keyring has expired"
	}
	return plain(err.Error())
}

func printProofLine(a *app, p *proof) {
	if !p.OK {
		fmt.Fprintf(a.stdout, "NOT VERIFIED  %d  %s  %s  %s\n", p.Number, orDash(claimed(p.Subject)), orDash(claimed(p.ID)), clean(p.Reason))
		return
	}
	if p.Bare {
		fmt.Fprintf(a.stdout, "ok, NOT attested  %d  %s  %s  %s  %s%s\n", p.Number, p.Recorded.Format(time.RFC3339), clean(p.Subject), clean(p.Producer), clean(p.ID), clockNote(p.Clock))
		return
	}
	fmt.Fprintf(a.stdout, "ok  %d  %s  %s  %s  %s%s\n", p.Number, p.Recorded.Format(time.RFC3339), clean(p.Subject), clean(p.Principal), clean(p.ID), clockNote(p.Clock))
}

// claimed shortens what nobody vouches for: a file can claim megabytes.
func claimed(s string) string {
	const most = 256
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + fmt.Sprintf("... (%d bytes)", len(s))
}

func printProof(a *app, p *proof, ring *keyring.Ring) {
	if !p.OK {
		fmt.Fprintf(a.stdout, "NOT VERIFIED: %s\n", clean(p.Reason))
		facts(a.stdout, "  ", "claims", "", "claimed id", claimed(p.ID), "claimed subject", claimed(p.Subject))
		return
	}
	signedWith := ""
	if p.Batch > 1 {
		signedWith = plural(p.Batch-1, "other event")
	}
	if p.Bare {
		fmt.Fprintf(a.stdout, "VERIFIED: signed by its producer %s for %s, and NOT attested\n", clean(p.Producer), clean(p.Subject))
	} else {
		fmt.Fprintf(a.stdout, "VERIFIED: %s published this on %s\n", clean(p.Principal), clean(p.Subject))
	}
	principal := p.Principal
	if p.AuthType != "" {
		principal += " (" + p.AuthType + ")"
	}
	facts(a.stdout, "  ", "recorded", p.Recorded.Format(time.RFC3339), "clock", p.Clock, "id", p.ID, "source", p.Source, "type", p.Type,
		"data", plural(p.Bytes, "byte"), "principal", principal, "broker key", p.Key,
		"signed with", signedWith, "signed by producer", p.Producer, "producer key", p.EventKey, "keyring", fmt.Sprintf("version %d", ring.Version()))
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return clean(s)
}

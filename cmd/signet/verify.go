package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
)

func verifyCommand(a *app) *cobra.Command {
	var ringFile, root string
	cmd := &cobra.Command{
		Use: "verify FILE|- [--keyring FILE --root O...]", Short: "prove who published an event, and that it is unchanged",
		Args: exactly("FILE"), DisableFlagsInUseLine: true,
		Long: `Verifies saved events: one structured CloudEvent as JSON, or one a line, with the
attributes natssubject and attestation (signet sub -o json writes them; an event
with dssematerial in place of attestation is read too). It says who published it,
on which subject and when, by which broker key. Any changed byte of data or
attributes makes it fail, with exit code 3.

With --keyring and --root it needs no network and no context. Otherwise both come
from the context; a context without a keyring file asks its broker.`,
		Example: `  signet verify evidence.ndjson
  signet verify event.json --keyring keyring.json --root OBQ7...
  signet sub 'orders.>' --since start --count 1 -o json | signet verify -`,
		RunE: a.verb(func(ctx context.Context, args []string) error { return verifyFile(ctx, a, args[0], ringFile, root) }),
	}
	cmd.Flags().StringVar(&ringFile, "keyring", "", "signed keyring (default: of the context, else fetched)")
	cmd.Flags().StringVar(&root, "root", "", "public root key (O...) that signed the keyring, or a file with it (default: of the context)")
	return cmd
}

func verifyFile(ctx context.Context, a *app, file, ringFile, root string) error {
	in := a.stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	ring, err := loadRing(ctx, a, ringFile, root)
	if err != nil {
		return err
	}
	v := &checker{verifier: signing.NewVerifier(func() *keyring.Ring { return ring }), ring: ring}
	good, bad, one, err := verifyAll(ctx, a, in, v)
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
			var u *usageError
			if errors.As(err, &u) {
				u.fix = "signet verify FILE --keyring keyring.json --root O... needs no context"
			}
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
	doc, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	ring, err := keyring.Parse(doc, root, time.Now())
	if err != nil {
		return nil, &exitError{code: exitRefused, err: fmt.Errorf("the keyring %s cannot be trusted: %w", file, err)}
	}
	return ring, nil
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
	Bytes     int        `json:"bytes"`
}

// checker verifies events one after the other.
type checker struct {
	verifier *signing.Verifier
	ring     *keyring.Ring
	scratch  cloudevent.Scratch
}

func (v *checker) check(n int, raw []byte) *proof {
	p := &proof{Number: n}
	var e cloudevent.Event
	if err := e.FromJSON(raw, &v.scratch); err != nil {
		p.Reason = "not a structured CloudEvent: " + strings.TrimPrefix(err.Error(), "cloudevent: ")
		return p
	}
	p.ID, p.Source, p.Type, p.Bytes = string(e.ID), string(e.Source), string(e.Type), len(e.Data)
	p.Subject = string(e.Get(wire.AttrNATSSubject))
	if p.Subject == "" {
		p.Reason = "it has no natssubject attribute, so what was signed cannot be rebuilt"
		return p
	}
	e.DelExt(wire.AttrNATSSubject)
	if len(e.Get(wire.AttrAttestation)) == 0 && len(e.Get(wire.AttrDSSE)) > 0 {
		return v.checkDSSE(p, &e)
	}
	att, err := v.verifier.Verify(&e, p.Subject)
	if err != nil {
		p.Reason = reason(err)
		return p
	}
	p.OK, p.Principal, p.AuthType, p.Recorded, p.Key, p.Batch = true, att.Principal, att.AuthType, &att.RecordedTime, att.KeyID, att.Batch
	return p
}

// checkDSSE verifies the standard form, as bridges write it.
func (v *checker) checkDSSE(p *proof, e *cloudevent.Event) *proof {
	if err := signing.VerifyDSSE(string(e.Get(wire.AttrDSSE)), e, p.Subject, v.ring); err != nil {
		p.Reason = reason(err)
		return p
	}
	p.OK, p.Principal, p.AuthType = true, string(e.Get(wire.AttrAuthID)), string(e.Get(wire.AttrAuthType))
	if t, ok := cloudevent.ParseTime(e.Get(wire.AttrRecordedTime)); ok {
		p.Recorded = &t
	}
	return p
}

// reason words a failed verification for people.
func reason(err error) string {
	switch {
	case errors.Is(err, signing.ErrBadSignature):
		return "the signature does not match: data or attributes were changed after the broker signed them"
	case errors.Is(err, signing.ErrMissing):
		return "it has no attestation"
	case errors.Is(err, signing.ErrUnknownKey):
		return "it is signed by a key that is not in the keyring"
	case errors.Is(err, signing.ErrNoKeyring):
		return "the keyring has expired"
	}
	return strings.TrimPrefix(err.Error(), "signing: ")
}

func printProofLine(a *app, p *proof) {
	if !p.OK {
		fmt.Fprintf(a.stdout, "NOT VERIFIED  %d  %s  %s  %s\n", p.Number, orDash(p.Subject), orDash(p.ID), clean(p.Reason))
		return
	}
	fmt.Fprintf(a.stdout, "ok  %d  %s  %s  %s  %s\n", p.Number, p.Recorded.Format(time.RFC3339), clean(p.Subject), clean(p.Principal), clean(p.ID))
}

func printProof(a *app, p *proof, ring *keyring.Ring) {
	if !p.OK {
		fmt.Fprintf(a.stdout, "NOT VERIFIED: %s\n", clean(p.Reason))
		facts(a.stdout, "  ", "claims", "", "claimed id", p.ID, "claimed subject", p.Subject)
		return
	}
	signedWith := ""
	if p.Batch > 1 {
		signedWith = plural(p.Batch-1, "other event")
	}
	fmt.Fprintf(a.stdout, "VERIFIED: %s published this on %s\n", clean(p.Principal), clean(p.Subject))
	facts(a.stdout, "  ", "recorded", p.Recorded.Format(time.RFC3339), "id", p.ID, "source", p.Source, "type", p.Type,
		"data", plural(p.Bytes, "byte"), "principal", p.Principal+" ("+p.AuthType+")", "broker key", p.Key,
		"signed with", signedWith, "keyring", fmt.Sprintf("version %d", ring.Version()))
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return clean(s)
}

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
)

// receiptFile keeps the receipts of signet pub, one a line. The zero value keeps none.
type receiptFile struct{ f *os.File }

// openReceipts opens the file before anything is published: who asked for proof must
// not find out afterwards that there is no place for it.
func openReceipts(name string) (receiptFile, error) {
	if name == "" {
		return receiptFile{}, nil
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return receiptFile{}, &usageError{msg: "--signed-ack: " + err.Error()}
	}
	return receiptFile{f}, nil
}

// keep appends the receipt of ack.
func (r receiptFile) keep(ack *client.Ack) error {
	if r.f == nil || ack == nil {
		return nil
	}
	_, err := r.f.Write(append(bytes.Clone(ack.Receipt), '\n'))
	return err
}

// close is after the last keep; an error means that receipts may be lost.
func (r receiptFile) close() error {
	if r.f == nil {
		return nil
	}
	return errors.Join(r.f.Sync(), r.f.Close())
}

// receiptProof is what is known of one receipt. Unless OK, only Number and Reason, and
// what the receipt claims where its signature holds, are set.
type receiptProof struct {
	Number  int              `json:"number"`
	OK      bool             `json:"ok"`
	Reason  string           `json:"reason,omitempty"`
	Key     string           `json:"key,omitempty"`
	Event   string           `json:"eventCompared,omitempty"` // file and number of the event that it is of
	Clock   string           `json:"clock,omitempty"`         // it was given in the future of the clock here
	Receipt *signing.Receipt `json:"receipt,omitempty"`
}

// savedEvent is an event of --event.
type savedEvent struct {
	number int
	event  cloudevent.Event
	bad    string // why its own signatures do not hold
}

func verifyReceipts(ctx context.Context, a *app, file, eventFile, ringFile, root string) error {
	ring, err := fileRing(ctx, a, ringFile, root)
	if err != nil {
		return err
	}
	var events []savedEvent
	if eventFile != "" {
		if events, err = readEvents(eventFile, ring); err != nil {
			return err
		}
	}
	in, err := openEvidence(ctx, a, file)
	if err != nil {
		return err
	}
	defer in.Close()
	bad, n := 0, 0
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, signing.MaxReceiptBytes+2)
	for lines.Scan() && ctx.Err() == nil {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		n++
		p := proveReceipt(n, line, ring, eventFile, events)
		if !p.OK {
			bad++
		}
		if a.jsonOut() {
			err = a.printLine(p)
		} else {
			printReceipt(a, p)
		}
		if err != nil {
			return err
		}
	}
	switch {
	case errors.Is(lines.Err(), bufio.ErrTooLong):
		return &usageError{msg: fmt.Sprintf("%s: receipt %d is longer than any can be, %d bytes", file, n+1, signing.MaxReceiptBytes)}
	case lines.Err() != nil:
		return lines.Err()
	case n == 0:
		return &usageError{msg: file + " holds no receipt"}
	case bad > 0:
		return &exitError{code: exitRefused}
	}
	return ctx.Err()
}

// readEvents reads the events that receipts are compared with.
func readEvents(file string, ring *keyring.Ring) ([]savedEvent, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	held := func() *keyring.Ring { return ring }
	v := &checker{verifier: signing.NewVerifier(held), producers: signing.NewProducerVerifier(held), ring: ring}
	var events []savedEvent
	dec := json.NewDecoder(bufio.NewReader(f))
	for n := 1; ; n++ {
		var raw json.RawMessage
		if err := dec.Decode(&raw); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, &usageError{msg: fmt.Sprintf("%s: event %d is not JSON: %v", file, n, err)}
		}
		saved := savedEvent{number: n}
		if p := v.check(n, raw); !p.OK {
			saved.bad = p.Reason
		} else if err := saved.event.FromJSON(raw, nil); err != nil {
			saved.bad = reason(err)
		}
		saved.event.DelExt(wire.AttrNATSSubject) // what the receipt says; check has compared it
		events = append(events, saved)
	}
	if len(events) == 0 {
		return nil, &usageError{msg: file + " holds no event"}
	}
	return events, nil
}

func proveReceipt(n int, doc []byte, ring *keyring.Ring, eventFile string, events []savedEvent) *receiptProof {
	p := &receiptProof{Number: n}
	r, key, err := signing.VerifyReceipt(doc, ring)
	if err != nil {
		p.Reason = receiptReason(err)
		return p
	}
	p.Receipt, p.Key, p.Clock = r, key.ID, aheadOfClock(r.Time, time.Now())
	if len(events) == 0 {
		p.OK = true
		return p
	}
	failed := signing.ErrOtherEvent
	for i := range events {
		e := &events[i]
		if e.bad != "" {
			failed = fmt.Errorf("event %d of %s does not verify itself: %s", e.number, eventFile, e.bad)
			continue
		}
		err := r.Covers(&e.event)
		if err == nil {
			p.OK, p.Event = true, eventFile+" "+strconv.Itoa(e.number)
			return p
		}
		if failed == signing.ErrOtherEvent { //nolint:errorlint // our own start value
			failed = err
		}
	}
	p.Reason = receiptReason(failed)
	return p
}

func receiptReason(err error) string {
	switch {
	case errors.Is(err, signing.ErrBadSignature):
		return "the signature does not match: the receipt was changed after it was signed"
	case errors.Is(err, signing.ErrStatement), errors.Is(err, signing.ErrReceipt):
		return "it is not a receipt in the layout of docs/spec/receipt.md"
	case err == signing.ErrOtherEvent: //nolint:errorlint // without further words
		return "it is of no event in the file: data, attributes or subject differ"
	}
	return reason(err)
}

func printReceipt(a *app, p *receiptProof) {
	r := p.Receipt
	if !p.OK {
		fmt.Fprintf(a.stdout, "NOT VERIFIED: receipt %d: %s\n", p.Number, clean(p.Reason))
		if r != nil {
			facts(a.stdout, "  ", "stream", clean(r.Stream), "sequence", strconv.FormatUint(r.Sequence, 10), "id", r.ID)
		}
		return
	}
	compared := "not compared (--event FILE compares)"
	switch {
	case r.Duplicate:
		compared = "of a duplicate: it says that this id was stored, not what"
	case p.Event != "":
		compared = "the same bytes as " + p.Event
	}
	if r.Duplicate {
		fmt.Fprintf(a.stdout, "VERIFIED, OF A DUPLICATE: %s had an event of %s with this source and id before: %s seq %d; what is stored there nobody compared\n", clean(r.Node), clean(r.Principal), clean(r.Stream), r.Sequence)
	} else {
		fmt.Fprintf(a.stdout, "VERIFIED: %s had an event of %s on stable storage: %s seq %d\n", clean(r.Node), clean(r.Principal), clean(r.Stream), r.Sequence)
	}
	facts(a.stdout, "  ", "acknowledged", r.Time.Format(time.RFC3339), "clock", p.Clock, "subject", r.Subject, "id", r.ID, "source", r.Source, "type", r.Type,
		"recorded", r.Recorded, "event", compared, "digest", hex.EncodeToString(r.Event), "policy", r.Policy, "broker key", p.Key)
}

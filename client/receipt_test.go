package client

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
)

// receiptFor is what an honest broker answers to p, after change.
func (f *fakeBroker) receiptFor(p published, change func(*signing.Receipt)) []byte {
	h := map[string][]string{}
	for line := range strings.SplitSeq(p.header, "\r\n") {
		if name, value, ok := strings.Cut(line, ": "); ok {
			h[name] = []string{value}
		}
	}
	var e cloudevent.Event
	if err := e.FromHeaderMap(h, p.data); err != nil {
		f.t.Error(err)
	}
	now := time.Now().UTC().Truncate(time.Second)
	e.Source, e.Type, e.ContentType = []byte("/shop/checkout"), []byte(p.subject), []byte(wire.DefaultContentType)
	e.SetExt([]byte(wire.AttrAuthID), []byte("shop/checkout"))
	e.SetExt([]byte(wire.AttrAuthType), []byte(wire.DefaultAuthType))
	e.SetExt([]byte(wire.AttrRecordedTime), signing.AppendRecordedTime(nil, now))
	sum, err := signing.EventDigest(&e, p.subject)
	if err != nil {
		f.t.Error(err)
	}
	r := signing.Receipt{
		Node: "node-1", Tenant: "shop", Principal: "shop/checkout", Subject: p.subject, Stream: "ORDERS", Sequence: 7, ID: string(e.ID),
		Source: string(e.Source), Type: string(e.Type), ContentType: string(e.ContentType), Recorded: string(e.Get(wire.AttrRecordedTime)), Event: sum[:], Time: now, Policy: "00",
	}
	change(&r)
	doc, err := f.signer.SignReceipt(r)
	if err != nil {
		f.t.Error(err)
	}
	return doc
}

// TestReceiptIsChecked: a publish that asked for proof gives none that does not prove
// what was sent.
func TestReceiptIsChecked(t *testing.T) {
	f := newFakeBroker(t)
	same := func(*signing.Receipt) {}
	var answer func(p published) []byte
	f.script = func(p published) {
		if !strings.Contains(p.header, "Signet-Ack: signed\r\n") {
			t.Errorf("it does not ask: %q", p.header)
		}
		doc := answer(p)
		if doc == nil {
			f.deliver(p.reply, "", "", []byte(`{"stream":"ORDERS","seq":7}`))
			return
		}
		f.deliver(p.reply, "", "", fmt.Appendf(nil, `{"stream":"ORDERS","seq":7,"receipt":%s}`, doc))
	}
	c := f.connect()
	both := func() (acks [2]*Ack, errs [2]error) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		ev := &Event{Data: []byte("payload")}
		acks[0], errs[0] = c.Publish(ctx, "orders.created", ev, WithSignedAck())
		future, err := c.PublishAsync(ctx, "orders.created", ev, WithSignedAck())
		if err != nil {
			t.Fatal(err)
		}
		acks[1], errs[1] = future.Wait(ctx)
		return acks, errs
	}
	f.look(func() { answer = func(p published) []byte { return f.receiptFor(p, same) } })
	acks, errs := both()
	for i := range acks {
		if errs[i] != nil || len(acks[i].Receipt) == 0 {
			t.Fatalf("a good receipt: %+v, %v", acks[i], errs[i])
		}
	}
	for name, change := range map[string]func(*signing.Receipt){
		"another digest":  func(r *signing.Receipt) { r.Event = bytes.Repeat([]byte{1}, 32) },
		"another subject": func(r *signing.Receipt) { r.Subject = "orders.paid" }, "another stream": func(r *signing.Receipt) { r.Stream = "PAYMENTS" },
		"another sequence": func(r *signing.Receipt) { r.Sequence = 8 }, "another id": func(r *signing.Receipt) { r.ID = "2" },
		"a duplicate": func(r *signing.Receipt) { r.Duplicate = true }, "another source": func(r *signing.Receipt) { r.Source = "/x" },
		"another tenant": func(r *signing.Receipt) { r.Tenant, r.Principal = "mill", "mill/checkout" },
		"another node":   func(r *signing.Receipt) { r.Node = "node-2" }, "another principal": func(r *signing.Receipt) { r.Principal = "shop/other" },
		"long ago": func(r *signing.Receipt) { r.Time = r.Time.Add(-48 * time.Hour) },
	} {
		f.look(func() { answer = func(p published) []byte { return f.receiptFor(p, change) } })
		refusedReceipts(t, name, both)
	}
	f.look(func() { answer = func(published) []byte { return nil } })
	refusedReceipts(t, "none", both)
	f.look(func() {
		answer = func(published) []byte { return []byte(`"` + base64.StdEncoding.EncodeToString([]byte("x")) + `"`) }
	})
	refusedReceipts(t, "something else", both)
	f.look(func() {
		answer = func(p published) []byte {
			doc := f.receiptFor(p, same)
			return bytes.Replace(doc, []byte(`"sig":"`), []byte(`"sig": "`), 1)
		}
	})
	refusedReceipts(t, "another layout", both)
}

func refusedReceipts(t *testing.T, name string, both func() ([2]*Ack, [2]error)) {
	t.Helper()
	acks, errs := both()
	for i := range errs {
		var e *Error
		if acks[i] != nil || !errors.Is(errs[i], ErrReceipt) || Retryable(errs[i]) || !errors.As(errs[i], &e) || e.EventID == "" {
			t.Errorf("%s (%d): %+v, %v", name, i, acks[i], errs[i])
		}
	}
}

// TestReceiptThatNobodyAskedFor: it was not verified, so nobody gets it.
func TestReceiptThatNobodyAskedFor(t *testing.T) {
	f := newFakeBroker(t)
	f.script = func(p published) {
		f.deliver(p.reply, "", "", []byte(`{"stream":"ORDERS","seq":7,"receipt":{"payloadType":"x"}}`))
	}
	c := f.connect()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ack, err := c.Publish(ctx, "orders.created", &Event{Data: []byte("x")})
	if err != nil || ack.Receipt != nil {
		t.Errorf("%+v, %v", ack, err)
	}
	future, err := c.PublishAsync(ctx, "orders.created", &Event{Data: []byte("x")})
	if err != nil {
		t.Fatal(err)
	}
	if ack, err := future.Wait(ctx); err != nil || ack.Receipt != nil {
		t.Errorf("async: %+v, %v", ack, err)
	}
}

// TestAsyncWaitsForAPlaceToAsk: no more signed acknowledgements are asked for at a time
// than a node lets a connection have.
func TestAsyncWaitsForAPlaceToAsk(t *testing.T) {
	f := newFakeBroker(t)
	held := make(chan published, 2*maxAsked)
	f.script = func(p published) { held <- p }
	c := f.connect()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var futures []*Future
	for range maxAsked {
		future, err := c.PublishAsync(ctx, "orders.created", &Event{Data: []byte("x")}, WithSignedAck())
		if err != nil {
			t.Fatal(err)
		}
		futures = append(futures, future)
	}
	soon, end := context.WithTimeout(ctx, 20*time.Millisecond)
	defer end()
	if _, err := c.PublishAsync(soon, "orders.created", &Event{Data: []byte("x")}, WithSignedAck()); !errors.Is(err, ErrTooManyInFlight) {
		t.Fatalf("one too many: %v", err)
	}
	if _, err := c.PublishAsync(ctx, "orders.created", &Event{Data: []byte("x")}); err != nil {
		t.Fatalf("one that asks for nothing: %v", err)
	}
	for range futures {
		p := <-held
		f.deliver(p.reply, "", "", fmt.Appendf(nil, `{"stream":"ORDERS","seq":7,"receipt":%s}`, f.receiptFor(p, func(*signing.Receipt) {})))
	}
	for _, future := range futures {
		if _, err := future.Wait(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.PublishAsync(ctx, "orders.created", &Event{Data: []byte("x")}, WithSignedAck()); err != nil {
		t.Errorf("when there is room again: %v", err)
	}
}

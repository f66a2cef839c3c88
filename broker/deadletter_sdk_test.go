package broker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/dlq"
	"github.com/signetbus/signet/signing"
)

// TestDeadLettersOfTheSDK: dead letters come typed, whole and oldest first, those that
// were stored before with their attestation, which is verified.
func TestDeadLettersOfTheSDK(t *testing.T) {
	b := newBroker(t)
	writer, root, miller := b.Client("writer"), b.Client("root"), b.Client("miller")
	ctx := within(t)
	_, err := writer.Publish(ctx, "orders.checked", &client.Event{ID: "refused", Type: "t", DataContentType: "application/json", Data: []byte(`{"no":"id"}`)})
	if !errors.Is(err, client.ErrSchemaViolation) {
		t.Fatal(err)
	}
	// It is written after the answer, so it comes by following.
	followed, stop := context.WithCancel(ctx)
	for l, err := range client.DeadLetters(followed, root, client.DeadLetterQuery{Follow: true}) {
		check(t, err)
		if l.Record.Reason != dlq.ReasonSchema || l.Record.Stage != dlq.StageIngress || l.Record.Principal != "shop/writer" || len(l.Record.Violations) == 0 ||
			string(l.Record.Payload) != `{"no":"id"}` || l.Event == nil || l.Event.ID != "refused" || !errors.Is(l.AttestationFault, client.ErrNotAttested) {
			t.Errorf("the refused one: %s, %v, %v", l.Record.Reason, l.EventFault, l.AttestationFault)
		}
		stop()
	}
	stop()

	// What consumers fail on is what is stored, byte for byte.
	large := bytes.Repeat([]byte("x"), 600<<10)
	must(writer.Publish(ctx, "orders.eu.large", &client.Event{ID: "large", Type: "t", Data: large}))(t)
	must(miller.Publish(ctx, "orders.eu.large", &client.Event{ID: "foreign", Type: "t", Data: []byte("flour")}))(t)
	put := func(tenant, subject string, change func(r *dlq.Record)) {
		t.Helper()
		m := must(must(insideJS(t, b, tenant).Stream(ctx, "ORDERS"))(t).GetLastMsgForSubject(ctx, "orders.eu.large"))(t)
		r := &dlq.Record{
			Reason: dlq.ReasonTerminated, Stage: dlq.StageConsumer, Time: time.Now(), Principal: "shop/wide", NATSSubject: subject, Detail: "no use",
			Attempts: 3, Origin: dlq.Origin{Stream: "ORDERS", Sequence: m.Sequence, Consumer: "c" + fmt.Sprint(time.Now().UnixNano())},
			Header: headerBlock(m.Header), Payload: m.Data,
		}
		change(r)
		header, body, err := r.Encode()
		check(t, err)
		must(insideJS(t, b, "shop").PublishMsg(ctx, &nats.Msg{Subject: r.Subject(), Header: header, Data: body}))(t)
	}
	same := func(*dlq.Record) {}
	stored := time.Now().Add(-time.Hour).UTC()
	put("shop", "orders.eu.large", func(r *dlq.Record) {
		r.By, r.Stored, r.Redrives, r.Deliveries = "shop/miller", stored, 2, []dlq.Delivery{{Attempt: 1, At: stored}, {Attempt: 3, At: stored.Add(time.Minute)}}
	})
	put("shop", "orders.eu.other", same)
	put("shop", "orders.eu.large", func(r *dlq.Record) { r.Payload = r.Payload[1:] })
	put("mill", "orders.eu.large", same)
	put("shop", "orders.eu.large", func(r *dlq.Record) { r.Header = nil })
	put("shop", "orders.eu.large", func(r *dlq.Record) { r.Header = []byte("no header") })

	next, done := iter.Pull2(client.DeadLetters(ctx, root, client.DeadLetterQuery{Reason: "terminated"}))
	defer done()
	last := uint64(1)
	take := func() *client.DeadLetter {
		t.Helper()
		l, err, ok := next()
		check(t, err)
		if !ok || l.Sequence <= last {
			t.Fatalf("after %d there is nothing, or one before it", last)
		}
		last = l.Sequence
		return l
	}
	l := take()
	if l.AttestationFault != nil || l.Attestation.Principal != "shop/writer" || l.Event.ID != "large" || !bytes.Equal(l.Event.Data, large) ||
		l.Record.Attempts != 3 || l.Record.Detail != "no use" || l.Record.Origin.Stream != "ORDERS" || l.Record.Principal != "shop/wide" {
		t.Errorf("the large one: %v, %v, %+v", l.AttestationFault, l.Attestation, l.Record.Origin)
	}
	if r := l.Record; r.By != "shop/miller" || !r.Stored.Equal(stored) || r.Redrives != 2 || len(r.Deliveries) != 2 || r.Deliveries[1].Attempt != 3 || !r.Deliveries[1].At.Equal(stored.Add(time.Minute)) {
		t.Errorf("its history: by %q, stored %v, redriven %d times, %+v", r.By, r.Stored, r.Redrives, r.Deliveries)
	}
	for _, what := range []string{"for another subject", "with other bytes"} {
		if l := take(); !errors.Is(l.AttestationFault, signing.ErrBadSignature) || l.Attestation.Principal != "" || l.Event == nil {
			t.Errorf("%s: %v, %v", what, l.AttestationFault, l.Attestation)
		}
	}
	if l := take(); l.AttestationFault == nil || l.Attestation.Principal != "" {
		t.Errorf("of another tenant: %v", l.Attestation)
	}
	for _, what := range []string{"without headers", "with bad headers"} {
		if l := take(); l.Event != nil || l.EventFault == nil || l.AttestationFault == nil {
			t.Errorf("%s: an event %v, %v", what, l.Event != nil, l.EventFault)
		}
	}
	if l, err, ok := next(); ok {
		t.Errorf("and then one more: %v, %v", l != nil, err)
	}

	for name, q := range map[string]client.DeadLetterQuery{
		"other subjects": {NATSSubject: "payments.>"}, "other principals": {Principal: "caller"}, "after the last": {After: last}, "in an hour": {Since: time.Now().Add(time.Hour)},
	} {
		for l, err := range client.DeadLetters(ctx, root, q) {
			t.Errorf("%s: one came: %v, %v", name, l != nil, err)
		}
	}
	for _, tt := range []struct {
		c    *client.Client
		q    client.DeadLetterQuery
		want error
	}{{writer, client.DeadLetterQuery{Follow: true}, client.ErrDenied}, {root, client.DeadLetterQuery{Reason: "none"}, client.ErrMalformed}} {
		times := 0
		for l, err := range client.DeadLetters(ctx, tt.c, tt.q) {
			if times++; l != nil || !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
		}
		if times != 1 {
			t.Errorf("%v is told %d times", tt.want, times)
		}
	}
}

// headerBlock is the wire form of headers.
func headerBlock(h nats.Header) []byte {
	var b strings.Builder
	b.WriteString("NATS/1.0\r\n")
	for name, values := range h {
		for _, v := range values {
			fmt.Fprintf(&b, "%s: %s\r\n", name, v)
		}
	}
	b.WriteString("\r\n")
	return []byte(b.String())
}

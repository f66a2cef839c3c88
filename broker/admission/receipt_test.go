package admission

import (
	"fmt"
	"strings"
	"testing"

	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
)

// desk is a Receipts of the test.
type desk struct {
	full *wire.Refusal
	got  []*signing.Receipt
}

func (d *desk) Room() *wire.Refusal { return d.full }

func (d *desk) Expect(_ []byte, r *signing.Receipt) (ackTo, before []byte) {
	d.got = append(d.got, r)
	return []byte("_INBOX.gate.1"), []byte("SUB _INBOX.gate.* x\r\n")
}

const askHeader = wire.HeaderLine + wire.HeaderAck + ": " + wire.AckSigned + "\r\n\r\n"

// TestAskedEvent: the header goes nowhere, the reply is the gate's, and what is taken
// down is of this event.
func TestAskedEvent(t *testing.T) {
	f := newFixture(t)
	d := &desk{}
	f.session.Begin(start)
	for _, p := range []*Publish{
		{Subject: []byte("orders.eu.created"), Reply: []byte("_INBOX.client.1"), Payload: []byte(`{"id":1}`)},
		{Subject: []byte("orders.eu.created"), Reply: []byte("_INBOX.client.2"), Payload: []byte(`{"id":2}`), Header: []byte(askHeader), Receipts: d},
		{Subject: []byte("orders.eu.created"), Reply: []byte("_INBOX.client.3"), Payload: []byte(`{"id":3}`), Receipts: d},
	} {
		if r := f.session.Publish(p); r != nil {
			t.Fatal(r)
		}
	}
	sum, err := signing.EventDigest(&f.session.events[1].event, "orders.eu.created")
	if err != nil {
		t.Fatal(err)
	}
	out := string(f.session.Flush(nil))
	for _, want := range []string{"HPUB orders.eu.created _INBOX.client.1 ", "SUB _INBOX.gate.* x\r\nHPUB orders.eu.created _INBOX.gate.1 ", "HPUB orders.eu.created _INBOX.client.3 "} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %q", want, out)
		}
	}
	if strings.Contains(out, wire.HeaderAck) || strings.Contains(out, "_INBOX.client.2") {
		t.Errorf("it goes on to the server: %q", out)
	}
	if len(d.got) != 1 || string(d.got[0].Event) != string(sum[:]) || d.got[0].Subject != "orders.eu.created" {
		t.Errorf("taken down: %+v", d.got)
	}
}

// TestAskRefused: nothing is signed that is not stored and answered.
func TestAskRefused(t *testing.T) {
	full := wire.Refuse(wire.CodeSignedAcksLimited, "signed-ack", "")
	for name, row := range map[string]struct {
		p    Publish
		code wire.Code
	}{
		"no reply":    {Publish{Subject: []byte("orders.eu.created"), Header: []byte(askHeader), Receipts: &desk{}}, wire.CodeHeaderDenied},
		"none given":  {Publish{Subject: []byte("orders.eu.created"), Header: []byte(askHeader), Reply: []byte("_INBOX.c.1")}, wire.CodeHeaderDenied},
		"full":        {Publish{Subject: []byte("orders.eu.created"), Header: []byte(askHeader), Reply: []byte("_INBOX.c.1"), Receipts: &desk{full: full}}, wire.CodeSignedAcksLimited},
		"other value": {Publish{Subject: []byte("orders.eu.created"), Header: []byte(strings.Replace(askHeader, wire.AckSigned, "Signed", 1)), Reply: []byte("_INBOX.c.1"), Receipts: &desk{}}, wire.CodeHeaderDenied},
		"live":        {Publish{Subject: []byte("telemetry.x"), Header: []byte(askHeader), Reply: []byte("_INBOX.c.1"), Receipts: &desk{}}, wire.CodeHeaderDenied},
	} {
		f := newFixture(t)
		f.session.Begin(start)
		row.p.Payload = []byte(`{"id":1}`)
		if r := f.session.Publish(&row.p); r == nil || r.Code != row.code {
			t.Errorf("%s: got %v, want %v", name, r, row.code)
		}
		if out := f.session.Flush(nil); len(out) != 0 {
			t.Errorf("%s: sent on: %q", name, out)
		}
	}
}

// TestExtensionsLeaveRoom: what is let in can leave the bus with all that the broker
// adds and derives, and still be read.
func TestExtensionsLeaveRoom(t *testing.T) {
	for n, ok := range map[int]bool{58: true, 59: false} {
		f := newFixture(t)
		f.session.Begin(start)
		var ext strings.Builder
		for i := range n {
			fmt.Fprintf(&ext, `,"x%d":"v"`, i)
		}
		r := f.session.Publish(&Publish{
			Subject: []byte("orders.eu.created"), Header: []byte(wire.HeaderLine + "content-type: application/cloudevents+json\r\n\r\n"),
			Payload: []byte(`{"specversion":"1.0","id":"1","datacontenttype":"application/json","data":{"id":1}` + ext.String() + `}`),
		})
		if (r == nil) != ok {
			t.Errorf("%d extensions: %v", n, r)
		}
	}
}

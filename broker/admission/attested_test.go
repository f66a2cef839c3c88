package admission

import (
	"bytes"
	"crypto/sha256"
	"testing"

	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing/tlog"
)

// listener is an Attested of the test: it keeps what it is told.
type listener struct {
	deaf, forgets bool
	got           map[string]heard // by header block
}

type heard struct {
	subject, data string
	digest        [sha256.Size]byte
}

func (l *listener) Wanted() bool { return !l.deaf }

func (l *listener) Put(subject, block, data []byte, digest [sha256.Size]byte) {
	if l.forgets {
		return
	}
	if len(l.got) > 1000 {
		clear(l.got)
	}
	l.got[string(block)] = heard{string(subject), string(data), digest}
}

// toldOf checks that the log was told of an event, and that the digest is the one that it
// would compute of the bytes that go to the server.
func (f *fixture) toldOf(fr frame) {
	f.t.Helper()
	h, ok := f.listener.got[string(fr.header)]
	if !ok || h.subject != fr.subject || h.data != string(fr.payload) {
		f.t.Fatalf("the log was not told of these bytes: %q", fr.header)
	}
	var whole, known tlog.Hasher
	want := whole.Stored(7, 8, fr.subject, fr.header, fr.payload)
	if want.Kind != tlog.Event || want.Content != h.digest {
		f.t.Fatalf("a leaf of the kind %s, content %x; the gate says %x", want.Kind, want.Content, h.digest)
	}
	if got := known.StoredAs(7, 8, fr.subject, fr.header, fr.payload, h.digest); got != want {
		f.t.Fatalf("%+v, want %+v", got, want)
	}
}

// What goes to a stream with a log is told with the digest that the log would compute:
// signed by its producer or not, in every mode, with other headers and hostile values.
func TestLoggedEventsAreTold(t *testing.T) {
	f := newFixture(t)
	e := f.signed("good", "orders.signed")
	if r, out := f.send("orders.signed", e); r != nil {
		t.Fatal(r)
	} else if fr := frames(t, []byte(out)); !bytes.Contains(fr[0].header, []byte(wire.AttrDSSE)) {
		t.Fatal("the producer's signature is not in the headers")
	} else {
		f.toldOf(fr[0])
	}
	for _, row := range []struct{ payload, lines string }{
		{"raw", ""},
		{"{}", "ce-id: 1\r\nce-type: com.acme.x\r\nce-time: 2026-01-02T03:04:05.678+01:00\r\nce-subject: %C3%BC%25%22"},
		{`{"specversion":"1.0","id":"1","source":"/partner/x","type":"com.acme.a","data":{"id":3}}`, "content-type: application/cloudevents+json"},
		{"x", "Nats-Expected-Last-Sequence: 4"},
	} {
		var lines []string
		if row.lines != "" {
			lines = []string{row.lines}
		}
		r, out := f.one("orders.created", row.payload, lines...)
		if r != nil {
			t.Fatal(r)
		}
		f.toldOf(frames(t, []byte(out))[0])
	}
}

// Nothing is told that goes to no stream, is refused, or that nobody wants to hear.
func TestOthersAreNotTold(t *testing.T) {
	f := newFixture(t)
	if r, _ := f.one("telemetry.cpu", "1"); r != nil {
		t.Fatal(r)
	}
	if r, _ := f.one("orders.checked", "no order"); r == nil {
		t.Fatal("not refused")
	}
	f.listener.deaf = true
	if r, _ := f.one("orders.created", "1"); r != nil {
		t.Fatal(r)
	}
	if len(f.listener.got) > 0 {
		t.Errorf("told: %q", f.listener.got)
	}
}

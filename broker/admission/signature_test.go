package admission

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math/big"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
)

// eventKeys makes a producer of each sort, by name, and the records of all but
// "stranger".
func eventKeys(t testing.TB, connection nkeys.KeyPair) (map[string]*signing.Producer, []keyring.Key) {
	t.Helper()
	producers := map[string]*signing.Producer{}
	var keys []keyring.Key
	for name, change := range map[string]func(k *keyring.Key){
		"good":   func(*keyring.Key) {},
		"second": func(*keyring.Key) {},
		"other":  func(k *keyring.Key) { k.Principal = "shop/other" },
		"tenant": func(k *keyring.Key) { k.Principal = "store/checkout" },
		"bounded": func(k *keyring.Key) {
			k.Sources, k.Subjects = []string{"/partner/*"}, []string{"orders.*.paid", "orders.eu"}
		},
		"late":      func(k *keyring.Key) { k.NotAfter = start },
		"early":     func(k *keyring.Key) { k.NotBefore = start.Add(time.Second) },
		"revoked":   func(k *keyring.Key) { k.RevokedAt = start },
		"connector": func(*keyring.Key) {}, // the key of the connection
		"stranger":  nil,
	} {
		pair, err := nkeys.CreateUser()
		if err != nil {
			t.Fatal(err)
		}
		if name == "connector" {
			pair = connection
		}
		seed, err := pair.Seed()
		if err != nil {
			t.Fatal(err)
		}
		if producers[name], err = signing.NewProducer(seed); err != nil {
			t.Fatal(err)
		}
		if change == nil {
			continue
		}
		k := keyring.Key{
			ID: producers[name].KeyID(), Alg: keyring.AlgEd25519, Role: keyring.RoleProducer, Principal: "shop/checkout",
			NotBefore: start.Add(-time.Hour), NotAfter: start.Add(time.Hour),
		}
		change(&k)
		keys = append(keys, k)
	}
	return producers, keys
}

// order is an event of shop/checkout, complete for signing, published at start.
func order(id string) *cloudevent.Event {
	e := &cloudevent.Event{
		ID: []byte(id), Source: []byte("/partner/acme"), Type: []byte("com.acme.order"), ContentType: []byte("application/json"),
		Time: []byte("2026-11-22T07:30:00.5Z"), Data: []byte(`{"id":1}`),
	}
	e.SetExt([]byte(wire.AttrRecordedTime), signing.AppendRecordedTime(nil, start))
	e.SetExt([]byte("zone"), []byte("b"))
	return e
}

// signed is order signed by the key of that name for subject.
func (f *fixture) signed(key, subject string, changes ...func(e *cloudevent.Event)) *cloudevent.Event {
	f.t.Helper()
	e := order("o-1")
	for _, change := range changes {
		change(e)
	}
	if err := f.keys[key].Sign(e, subject); err != nil {
		f.t.Fatal(err)
	}
	return e
}

func (f *fixture) send(subject string, e *cloudevent.Event) (*wire.Refusal, string) {
	lines := strings.Split(strings.TrimSuffix(string(cloudevent.AppendHeaders(nil, e)), "\r\n"), "\r\n")
	return f.one(subject, string(e.Data), lines...)
}

// refused publishes e and wants code, and nothing forwarded.
func (f *fixture) refused(what, subject string, e *cloudevent.Event, code wire.Code) {
	f.t.Helper()
	r, out := f.send(subject, e)
	switch {
	case r == nil:
		f.t.Errorf("%s: accepted, want %v", what, code)
	case r.Code != code:
		f.t.Errorf("%s: got %v, want %v", what, r, code)
	case out != "":
		f.t.Errorf("%s: something was forwarded: %q", what, out)
	case r.Subject != subject || r.Principal != "shop/checkout" || r.Rule == "":
		f.t.Errorf("%s: the refusal does not name subject, principal and rule: %v", what, r)
	}
}

// accepted publishes e, and checks both signatures as a reader does.
func (f *fixture) accepted(what, subject string, e *cloudevent.Event) (stored *cloudevent.Event, header string) {
	f.t.Helper()
	r, out := f.send(subject, e)
	if r != nil {
		f.t.Fatalf("%s: %v", what, r)
	}
	fr := frames(f.t, []byte(out))[0]
	stored = f.verify(fr)
	v := signing.NewProducerVerifier(func() *keyring.Ring { return f.ring })
	if _, err := v.Verify(stored, subject); err != nil {
		f.t.Fatalf("%s: as stored: %v", what, err)
	}
	return stored, string(fr.header)
}

func setExt(name, value string) func(e *cloudevent.Event) {
	return func(e *cloudevent.Event) { e.SetExt([]byte(name), []byte(value)) }
}

func recordedAt(t time.Time) func(e *cloudevent.Event) {
	return setExt(wire.AttrRecordedTime, string(signing.AppendRecordedTime(nil, t)))
}

func TestSignedEventIsStoredAsItWasSigned(t *testing.T) {
	f := newFixture(t)
	for _, subject := range []string{"orders.created", "orders.signed", "telemetry.signed"} {
		e := f.signed("good", subject)
		stored, header := f.accepted(subject, subject, e)
		if !bytes.Equal(stored.Get(wire.AttrDSSE), e.Get(wire.AttrDSSE)) || !bytes.Equal(stored.Get(wire.AttrRecordedTime), e.Get(wire.AttrRecordedTime)) {
			t.Errorf("%s: stored %q", subject, header)
		}
		if got := string(stored.Get(wire.AttrAuthID)); got != "shop/checkout" {
			t.Errorf("%s: authid %s", subject, got)
		}
		if got := strings.Count(header, wire.HeaderMsgID); got != strings.Count(subject, "orders") {
			t.Errorf("%s: %d dedup keys in %q", subject, got, header)
		}
	}
	// In the JSON format too, and with what can be derived written out.
	e := f.signed("good", "orders.created", setExt(wire.AttrNATSSubject, "orders.created"), setExt(signing.AttrExactTime, "2026-11-22T07:30:00.5Z"))
	_, header := f.accepted("derived attributes", "orders.created", e)
	if strings.Contains(header, wire.AttrNATSSubject) || strings.Contains(header, signing.AttrExactTime) {
		t.Errorf("what readers derive was stored: %q", header)
	}
	r, out := f.one("orders.created", string(cloudevent.AppendJSON(nil, f.signed("good", "orders.created"))), "content-type: application/cloudevents+json")
	if r != nil {
		t.Fatal(r)
	}
	f.verify(frames(t, []byte(out))[0])
}

func TestSignatureRefusals(t *testing.T) {
	long := strings.Repeat("A", 4100)
	for _, c := range []struct {
		name, key, subject string
		code               wire.Code
		before, after      func(e *cloudevent.Event)
	}{
		{name: "malformed", code: wire.CodeSignatureUnsupported, after: setExt(wire.AttrDSSE, "e30=")},
		{name: "too long", code: wire.CodeHeadersTooLarge, after: setExt(wire.AttrDSSE, long)},
		{name: "no id", code: wire.CodeSignatureUnsupported, after: func(e *cloudevent.Event) { e.ID = nil }},
		{name: "no source", code: wire.CodeSignatureUnsupported, after: func(e *cloudevent.Event) { e.Source = nil }},
		{name: "no type", code: wire.CodeSignatureUnsupported, after: func(e *cloudevent.Event) { e.Type = nil }},
		{name: "no time", code: wire.CodeSignatureUnsupported, after: func(e *cloudevent.Event) { e.Time = nil }},
		{name: "no content type", code: wire.CodeSignatureUnsupported, after: func(e *cloudevent.Event) { e.ContentType = nil }},
		{name: "no recordedtime", code: wire.CodeSignatureUnsupported, after: func(e *cloudevent.Event) { e.DelExt(wire.AttrRecordedTime) }},
		{name: "recordedtime in parts of a second", code: wire.CodeSignatureUnsupported, after: setExt(wire.AttrRecordedTime, "2026-11-22T07:30:00.5Z")},
		{name: "unknown key", key: "stranger", code: wire.CodeProducerKeyUnknown},
		{name: "key of before", key: "late", code: wire.CodeProducerKeyNotValid},
		{name: "key of later", key: "early", code: wire.CodeProducerKeyNotValid},
		{name: "revoked key", key: "revoked", code: wire.CodeProducerKeyNotValid},
		{name: "revoked key that claims an earlier time", key: "revoked", code: wire.CodeProducerKeyNotValid, before: recordedAt(start.Add(-30 * time.Second))},
		{name: "key of the connection", key: "connector", code: wire.CodeProducerKeyNotValid},
		{name: "key of another principal", key: "other", code: wire.CodeProducerKeyPrincipal},
		{name: "Row22 key of the same name in another tenant", key: "tenant", code: wire.CodeProducerKeyPrincipal},
		{name: "source outside the key", key: "bounded", subject: "orders.eu", code: wire.CodeProducerKeySource, before: func(e *cloudevent.Event) { e.Source = []byte("/shop/checkout") }},
		{name: "source outside the grants", code: wire.CodeSourceDenied, before: func(e *cloudevent.Event) { e.Source = []byte("/bank/transfer") }},
		{name: "subject outside the key", key: "bounded", subject: "orders.created", code: wire.CodeProducerKeySubject},
		{name: "Row22 another natssubject", code: wire.CodeProducerKeySubject, after: setExt(wire.AttrNATSSubject, "orders.paid")},
		{name: "Row22 too old", code: wire.CodeOutsideReplayWindow, before: recordedAt(start.Add(-policy.ReplayPast))},
		{name: "Row23 an hour behind", code: wire.CodeOutsideReplayWindow, before: recordedAt(start.Add(-59 * time.Minute))},
		{name: "too far ahead", code: wire.CodeOutsideReplayWindow, before: recordedAt(start.Add(policy.ReplayFuture + time.Second))},
		{name: "Row23 an hour ahead", code: wire.CodeOutsideReplayWindow, before: recordedAt(start.Add(59 * time.Minute))},
		{name: "changed", code: wire.CodeProducerSignatureInvalid, after: func(e *cloudevent.Event) { e.Data = []byte(`{"id":2}`) }},
		{name: "another exacttime", code: wire.CodeSignatureUnsupported, after: setExt(signing.AttrExactTime, "2026-11-22T07:30:00.6Z")},
		{name: "attestation beside it", code: wire.CodeAttestationForbidden, after: setExt(wire.AttrAttestation, "EA")},
		{name: "expanded attestation beside it", code: wire.CodeAttestationForbidden, after: setExt(wire.AttrExpanded, "e30=")},
		{name: "authid beside it", code: wire.CodeAttestationForbidden, after: setExt(wire.AttrAuthID, "shop/checkout")},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t)
			key, subject := c.key, c.subject
			if key == "" {
				key = "good"
			}
			if subject == "" {
				subject = "orders.created"
			}
			before, after := c.before, c.after
			if before == nil {
				before = func(*cloudevent.Event) {}
			}
			e := f.signed(key, subject, before)
			if after != nil {
				after(e)
			}
			f.refused(c.name, subject, e, c.code)
		})
	}
}

// Both ends of the window, by the broker's clock.
func TestReplayWindow(t *testing.T) {
	for ahead, want := range map[time.Duration]bool{
		-policy.ReplayPast: false, -policy.ReplayPast + time.Second: true, 0: true, policy.ReplayFuture: true, policy.ReplayFuture + time.Second: false,
	} {
		f := newFixture(t)
		r, _ := f.send("orders.created", f.signed("good", "orders.created", recordedAt(start.Add(ahead))))
		if (r == nil) != want {
			t.Errorf("recordedtime %v from now: %v, want accepted %v", ahead, r, want)
		}
	}
	if policy.MinDuplicateWindow <= policy.ReplayPast+policy.ReplayFuture || policy.DefaultDuplicateWindow < policy.MinDuplicateWindow {
		t.Error("a stream forgets a signed event while its recordedtime still lets it in")
	}
}

// The rows of the threat table in docs/threat-model.md, section "Producer signatures".
func TestSignatureThreats(t *testing.T) {
	run := func(name string, test func(t *testing.T, f *fixture)) {
		t.Run(name, func(t *testing.T) { test(t, newFixture(t)) })
	}
	const on = "orders.created"
	run("S01 tamper", func(_ *testing.T, f *fixture) {
		f.accepted("untouched", on, f.signed("good", on))
		for name, change := range map[string]func(e *cloudevent.Event){
			"id": func(e *cloudevent.Event) { e.ID = []byte("o-2") }, "data": func(e *cloudevent.Event) { e.Data = nil },
			"source": func(e *cloudevent.Event) { e.Source = []byte("/partner/acm") }, "type": func(e *cloudevent.Event) { e.Type = []byte("com.acme.x") },
			"time": func(e *cloudevent.Event) { e.Time = []byte("2026-11-22T07:30:00.6Z") }, "zone": setExt("zone", "c"),
			"subject":      func(e *cloudevent.Event) { e.Subject = []byte("x") },
			"recordedtime": recordedAt(start.Add(-time.Second)),
		} {
			e := f.signed("good", on)
			change(e)
			f.refused(name, on, e, wire.CodeProducerSignatureInvalid)
		}
	})
	run("S02 stripping", func(_ *testing.T, f *fixture) {
		for _, subject := range []string{"orders.signed", "telemetry.signed"} {
			e := f.signed("good", subject)
			e.DelExt(wire.AttrDSSE)
			f.refused("recordedtime left", subject, e, wire.CodeAttestationForbidden)
			e.DelExt(wire.AttrRecordedTime)
			f.refused("stripped", subject, e, wire.CodeSignatureRequired)
		}
		r, _ := f.one("orders.signed", "raw bytes")
		if r == nil || r.Code != wire.CodeSignatureRequired || r.Rule != "subject orders.signed" {
			f.t.Errorf("raw bytes: got %v", r)
		}
	})
	run("S03 added attribute", func(_ *testing.T, f *fixture) {
		for _, name := range []string{wire.AttrExpiryTime, wire.AttrPartitionKey, wire.AttrSequence, "mood"} {
			e := f.signed("good", on)
			e.SetExt([]byte(name), []byte("2026-11-22T07:30:00Z"))
			f.refused(name, on, e, wire.CodeProducerSignatureInvalid)
		}
	})
	run("S04 another subject", func(t *testing.T, f *fixture) {
		f.refused("another subject", "orders.paid", f.signed("good", on), wire.CodeProducerSignatureInvalid)
		f.refused("and it says which", "orders.paid", f.signed("good", on, setExt(wire.AttrNATSSubject, on)), wire.CodeProducerKeySubject)
		f.refused("another tenant's event", on, f.signed("tenant", on), wire.CodeProducerKeyPrincipal)
	})
	run("S05 replay", threatReplay)
	run("S06 dedup poisoning", threatDedup)
	run("S07 another source", func(_ *testing.T, f *fixture) {
		f.refused("outside the key", "orders.eu", f.signed("bounded", "orders.eu", func(e *cloudevent.Event) { e.Source = []byte("/shop/checkout") }), wire.CodeProducerKeySource)
		f.refused("outside the grants", on, f.signed("good", on, func(e *cloudevent.Event) { e.Source = []byte("/shop/other") }), wire.CodeSourceDenied)
		f.refused("a key of somebody else", on, f.signed("other", on), wire.CodeProducerKeyPrincipal)
	})
	run("S08 key confusion", threatKeys)
	run("S09 connection key", func(_ *testing.T, f *fixture) {
		f.refused("connection key", on, f.signed("connector", on), wire.CodeProducerKeyNotValid)
	})
	run("S10 parser differential", threatForms)
	run("S11 header case and percent-encoding", threatHeaders)
	run("S12 malleability", threatMalleability)
	run("S14 batch and single agree", func(_ *testing.T, f *fixture) {
		for _, n := range []int{1, 2, 32} {
			var b signing.ProducerBatch
			events := make([]*cloudevent.Event, n)
			for i := range events {
				events[i] = order(fmt.Sprint("o-", i))
				if _, err := b.Add(events[i], []byte(on)); err != nil {
					f.t.Fatal(err)
				}
			}
			b.Sign(f.keys["good"])
			for i, e := range events {
				e.SetExt([]byte(wire.AttrDSSE), b.AppendMaterial(nil, i))
				f.accepted(fmt.Sprintf("%d of %d", i, n), on, e)
				e.Data = []byte(`{"id":2}`)
				f.refused(fmt.Sprintf("%d of %d, changed", i, n), on, e, wire.CodeProducerSignatureInvalid)
			}
		}
	})
	run("S15 leaf and node", func(_ *testing.T, f *fixture) {
		var b signing.ProducerBatch
		events := []*cloudevent.Event{order("o-0"), order("o-1"), order("o-2")}
		for _, e := range events {
			if _, err := b.Add(e, []byte(on)); err != nil {
				f.t.Fatal(err)
			}
		}
		b.Sign(f.keys["good"])
		for i, e := range events {
			for j := range events {
				if i != j {
					c := e.Clone()
					c.SetExt([]byte(wire.AttrDSSE), b.AppendMaterial(nil, j))
					f.refused("the signature of a neighbour", on, c, wire.CodeProducerSignatureInvalid)
				}
			}
		}
	})
	run("S18 stolen key", func(_ *testing.T, f *fixture) {
		f.refused("revoked", on, f.signed("revoked", on), wire.CodeProducerKeyNotValid)
		f.refused("revoked, from before the revocation", on, f.signed("revoked", on, recordedAt(start.Add(-time.Minute))), wire.CodeProducerKeyNotValid)
	})
	run("S19 cost of verifying", func(t *testing.T, f *fixture) {
		// Rate, size and grants come first; an unknown key before anything is hashed
		// (signing.TestUnknownKeyCostsNoHashing).
		for i := range 3 {
			r, _ := f.send("orders.limited", f.signed("stranger", "orders.limited"))
			want := wire.CodeProducerKeyUnknown
			if i == 2 { // the limit is 2/s
				want = wire.CodeRateLimited
			}
			if r == nil || r.Code != want {
				t.Errorf("publish %d: got %v, want %v", i, r, want)
			}
		}
		f.refused("no grant", "billing.paid", f.signed("good", "billing.paid"), wire.CodePublishDenied)
	})
}

func threatReplay(t *testing.T, f *fixture) {
	// Stored: the same dedup key both times, so JetStream keeps one.
	e := f.signed("good", "orders.created")
	_, first := f.accepted("first", "orders.created", e)
	_, second := f.accepted("a retry", "orders.created", e)
	if a, b := msgID(t, first), msgID(t, second); a != b {
		t.Errorf("a retry has another dedup key: %s, %s", a, b)
	}
	// Not stored: this node remembers it, on every connection.
	live := f.signed("good", "telemetry.cpu")
	f.accepted("first, ephemeral", "telemetry.cpu", live)
	f.refused("replay, ephemeral", "telemetry.cpu", live, wire.CodeReplayed)
	f.session = f.chain.Session(f.session.Principal())
	f.refused("replay on another connection", "telemetry.cpu", live, wire.CodeReplayed)
	// What was refused is not remembered: nobody can burn an id with a bad event.
	bad := f.signed("good", "telemetry.mem", func(e *cloudevent.Event) { e.ID = []byte("o-9") })
	good := bad.Clone()
	bad.Data = []byte("x")
	f.refused("changed", "telemetry.mem", bad, wire.CodeProducerSignatureInvalid)
	f.accepted("unchanged", "telemetry.mem", good)
	// Later the time refuses it.
	f.session.Begin(start.Add(policy.ReplayPast))
	lines := strings.Split(strings.TrimSuffix(string(cloudevent.AppendHeaders(nil, e)), "\r\n"), "\r\n")
	r := f.session.Publish(&Publish{Subject: []byte("orders.created"), Header: block(lines...), Payload: e.Data})
	if r == nil || r.Code != wire.CodeOutsideReplayWindow {
		t.Errorf("after the window: got %v", r)
	}
}

func msgID(t *testing.T, header string) string {
	t.Helper()
	_, rest, ok := strings.Cut(header, wire.HeaderMsgID+": ")
	if !ok {
		t.Fatalf("no dedup key in %q", header)
	}
	id, _, _ := strings.Cut(rest, "\r\n")
	return id
}

// Whoever is not the producer cannot make an event whose dedup key is that of a
// producer's: it is bound to the principal and to the signature, and what the client
// sends is no key.
func threatDedup(t *testing.T, f *fixture) {
	_, signed := f.accepted("signed", "orders.created", f.signed("good", "orders.created"))
	_, other := f.accepted("other key", "orders.created", f.signed("second", "orders.created"))
	bare := order("o-1")
	bare.DelExt(wire.AttrRecordedTime)
	r, out := f.send("orders.created", bare)
	if r != nil {
		t.Fatal(r)
	}
	ids := []string{msgID(t, signed), msgID(t, other), msgID(t, string(frames(t, []byte(out))[0].header))}
	if ids[0] == ids[2] {
		t.Errorf("an unsigned event has the dedup key of a signed one: %v", ids)
	}
	if ids[0] != ids[1] {
		t.Errorf("an event signed anew with another key of its principal has another dedup key: %v", ids)
	}
	e := f.signed("good", "orders.created")
	lines := strings.Split(strings.TrimSuffix(string(cloudevent.AppendHeaders(nil, e)), "\r\n"), "\r\n")
	r, out = f.one("orders.created", string(e.Data), append(lines, "Nats-Msg-Id: "+ids[2])...)
	if r != nil {
		t.Fatal(r)
	}
	if got := msgID(t, out); got != ids[0] {
		t.Errorf("a client's Nats-Msg-Id became the dedup key: %s", got)
	}
}

// rewrite edits the JSON of e's dssematerial.
func rewrite(t *testing.T, e *cloudevent.Event, edit func(json string) string) *cloudevent.Event {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(string(e.Get(wire.AttrDSSE)))
	if err != nil {
		t.Fatal(err)
	}
	out := edit(string(b))
	if out == string(b) {
		t.Fatal("the edit changed nothing")
	}
	e = e.Clone()
	e.SetExt([]byte(wire.AttrDSSE), []byte(base64.StdEncoding.EncodeToString([]byte(out))))
	return e
}

func threatKeys(t *testing.T, f *fixture) {
	const on = "orders.created"
	e := f.signed("good", on)
	swap := func(id string) *cloudevent.Event {
		return rewrite(t, e, func(s string) string { return strings.Replace(s, f.keys["good"].KeyID(), id, 1) })
	}
	f.refused("keyid of a second key", on, swap(f.keys["second"].KeyID()), wire.CodeProducerSignatureInvalid)
	f.refused("keyid of another principal", on, swap(f.keys["other"].KeyID()), wire.CodeProducerKeyPrincipal)
	f.refused("unknown keyid", on, swap(f.keys["stranger"].KeyID()), wire.CodeProducerKeyUnknown)
	i := slices.IndexFunc(f.ring.Keys(), func(k keyring.Key) bool { return k.Role == keyring.RoleBroker })
	f.refused("a broker's key", on, swap(f.ring.Keys()[i].ID), wire.CodeProducerKeyNotValid)
	f.refused("an algorithm in the message", on, rewrite(t, e, func(s string) string {
		return strings.Replace(s, `"sig":`, `"alg":"none","sig":`, 1)
	}), wire.CodeSignatureUnsupported)
	f.refused("a key in the message", on, rewrite(t, e, func(s string) string {
		return strings.Replace(s, `"sig":`, `"cert":"https://example.com/key","sig":`, 1)
	}), wire.CodeSignatureUnsupported)
}

func threatForms(t *testing.T, f *fixture) {
	const on = "orders.created"
	e := f.signed("good", on)
	for name, edit := range map[string]func(s string) string{
		"white space":       func(s string) string { return strings.Replace(s, `,"sig`, `, "sig`, 1) },
		"member twice":      func(s string) string { return strings.Replace(s, `"payload":`, `"payload":"e30=","payload":`, 1) },
		"payloadType twice": func(s string) string { return strings.Replace(s, `{"p`, `{"payloadType":"x","p`, 1) },
		"other letter case": func(s string) string { return strings.Replace(s, `"payload"`, `"PAYLOAD"`, 1) },
		"escape":            func(s string) string { return strings.Replace(s, `"keyid"`, `"\u006beyid"`, 1) },
		"second value":      func(s string) string { return s + s },
		"no signatures":     func(s string) string { return s[:strings.Index(s, "[{")] + "[]}" },
	} {
		f.refused(name, on, rewrite(t, e, edit), wire.CodeSignatureUnsupported)
	}
	twice := strings.Replace(string(cloudevent.AppendJSON(nil, e)), `"zone":`, `"zone":"x","zone":`, 1)
	if r, _ := f.one(on, twice, "content-type: application/cloudevents+json"); r == nil || r.Code != wire.CodeHeaderDuplicate {
		t.Errorf("attribute twice in the JSON format: got %v", r)
	}
}

func threatHeaders(t *testing.T, f *fixture) {
	const on = "orders.created"
	e := f.signed("good", on, setExt("mood", "50% ö"))
	f.accepted("percent-encoded once", on, e)
	good := strings.Split(strings.TrimSuffix(string(cloudevent.AppendHeaders(nil, e)), "\r\n"), "\r\n")
	for name, c := range map[string]struct {
		edit func(line string) string
		add  string
		code wire.Code
	}{
		"encoded twice":   {edit: func(l string) string { return strings.Replace(l, "%25", "%2525", 1) }, code: wire.CodeProducerSignatureInvalid},
		"upper-case name": {edit: func(l string) string { return strings.Replace(l, "ce-dsse", "Ce-dsse", 1) }, code: wire.CodeHeaderDuplicate},
		"second value":    {add: "ce-mood: x", code: wire.CodeHeaderDuplicate},
		"second name":     {add: "CE-Zone: x", code: wire.CodeHeaderDuplicate},
	} {
		lines := slices.Clone(good)
		if c.edit != nil {
			for i := range lines {
				lines[i] = c.edit(lines[i])
			}
		}
		if c.add != "" {
			lines = append(lines, c.add)
		}
		if slices.Equal(lines, good) {
			t.Fatalf("%s: nothing was changed", name)
		}
		if r, _ := f.one(on, string(e.Data), lines...); r == nil || r.Code != c.code {
			t.Errorf("%s: got %v, want %v", name, r, c.code)
		}
	}
}

// S+L is the other number that gives the same point: crypto/ed25519 refuses it, and
// the dedup key does not use the bytes of a signature anyway.
func threatMalleability(t *testing.T, f *fixture) {
	const on = "orders.created"
	order, _ := new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
	e := f.signed("good", on)
	f.refused("S+L", on, rewrite(t, e, func(s string) string {
		i := strings.Index(s, `"sig":"`) + 7
		j := i + strings.IndexByte(s[i:], '"')
		sig, err := base64.StdEncoding.DecodeString(s[i:j])
		if err != nil {
			t.Fatal(err)
		}
		half := slices.Clone(sig[32:])
		slices.Reverse(half)
		sum := new(big.Int).Add(new(big.Int).SetBytes(half), order).FillBytes(make([]byte, 32))
		slices.Reverse(sum)
		return s[:i] + base64.StdEncoding.EncodeToString(append(sig[:32], sum...)) + s[j:]
	}), wire.CodeProducerSignatureInvalid)
}

func TestSeen(t *testing.T) {
	var s Seen
	id := func(n int) seenID { return seenIDOf(fmt.Append(nil, n)) }
	take := func(n int, who string, recorded, at time.Time, want seenVerdict) {
		t.Helper()
		if got := s.look(id(n), who, recorded, at); got != want {
			t.Errorf("look at %d of %s: got %v, want %v", n, who, got, want)
		}
		if got := s.take(id(n), who, recorded, at); got != want {
			t.Errorf("take %d of %s: got %v, want %v", n, who, got, want)
		}
	}
	// It stays for as long as its time would let it in, and goes soon after that.
	take(0, "t/a", start, start, seenNew)
	for at := start; at.Before(start.Add(policy.ReplayPast)); at = at.Add(time.Second) {
		take(0, "t/a", start, at, seenBefore)
	}
	take(0, "t/a", start.Add(policy.ReplayFuture), start, seenBefore) // with another time too
	s.Sweep(start.Add(policy.ReplayPast + seenStep))
	take(0, "t/a", start, start.Add(policy.ReplayPast+seenStep), seenForgotten)
	s.Sweep(start.Add(seenLongest))
	if s.total != 0 || len(s.steps) != 0 || len(s.count) != 0 || !s.expires.IsZero() {
		t.Errorf("%d events are remembered for ever: %v, %v", s.total, s.steps, s.count)
	}
	// One principal cannot fill it for the others, nor one tenant.
	at := start.Add(time.Hour)
	for _, who := range []string{"t/a", "t/b"} {
		for n := range maxSeenPerPrincipal {
			if s.take(seenIDOf(fmt.Append(nil, who, n)), who, at, at) != seenNew {
				t.Fatal("refused before it is full")
			}
		}
		take(maxSeen, who, at, at, seenFull)
	}
	take(maxSeen, "t/c", at, at, seenFull)
	take(maxSeen, "u/a", at, at, seenNew)
	take(maxSeen+1, "t/c", at.Add(seenLongest), at.Add(seenLongest), seenNew)
}

// A clock that is set forward and back, or a process that begins, makes nothing new.
func TestSeenForgetsNoReplay(t *testing.T) {
	var s Seen
	id := seenIDOf([]byte("x"))
	if got := s.take(id, "t/a", start, start); got != seenNew {
		t.Fatal(got)
	}
	s.Sweep(start.Add(time.Hour))
	if got := s.look(id, "t/a", start, start.Add(time.Second)); got != seenForgotten {
		t.Errorf("after a clock that went an hour ahead and back: got %v", got)
	}
	var next Seen
	next.Begin(start.Add(1500 * time.Millisecond))
	if got := next.look(id, "t/a", start, start.Add(time.Second)); got != seenForgotten {
		t.Errorf("after a restart: got %v", got)
	}
	if got := next.look(id, "t/a", start.Add(time.Second), start.Add(time.Second)); got != seenNew {
		t.Errorf("of after the restart: got %v", got)
	}
	f := newFixture(t)
	f.seen.Begin(start.Add(1500 * time.Millisecond))
	f.refused("recorded before the process began", "telemetry.cpu", f.signed("good", "telemetry.cpu"), wire.CodeOutsideReplayWindow)
}

// A stream that may have lost what a process before this one let in takes nothing that was
// recorded then, and says until when; whoever redrives a dead letter knows. Every other
// stream knows what it has.
func TestForgettingStreamsAfterTheStart(t *testing.T) {
	streams := map[string]string{
		"limits": "", "work": "retention: workqueue", "interest": "retention: interest", "ttl": "messageTTL: true",
		"rollup": "unsafeRollup: true", "schedules": "unsafeSchedules: true",
	}
	text := ""
	for name, more := range streams {
		text += fmt.Sprintf("  - {name: %s, subjects: [jobs.%s], maxBytes: 1MiB, %s}\n", strings.ToUpper(name), name, more)
	}
	f := newFixtureOf(t, strings.NewReplacer("ephemeral:", text+"ephemeral:", "[orders.>, ", "[orders.>, jobs.>, ").Replace(testPolicy))
	const before = 3 * time.Second
	f.seen.Begin(start)
	for name := range streams {
		on := "jobs." + name
		old, edge := f.signed("good", on, recordedAt(start.Add(-before))), f.signed("good", on, recordedAt(start))
		f.accepted(name+", as the process begins", on, edge)
		f.accepted(name+", again: the stream says that it is a duplicate", on, edge)
		if name == "limits" {
			if r, _ := f.send(on, old); r != nil {
				t.Errorf("%s, before: %v", name, r)
			}
			continue
		}
		f.refused(name+", before", on, old, wire.CodeOutsideReplayWindow)
		if r, _ := f.send(on, old); r == nil || r.RetryAfter != before {
			t.Errorf("%s: got %v, want it to pass after %v", name, r, before)
		}
		lines := strings.Split(strings.TrimSuffix(string(cloudevent.AppendHeaders(nil, old)), "\r\n"), "\r\n")
		p := &Publish{Subject: []byte(on), Header: block(lines...), Payload: old.Data}
		if _, _, r := Redrive(f.chain.Session(f.session.Principal()), p, start.Add(-before), start.Add(time.Hour-time.Second), true); r != nil {
			t.Errorf("%s: redriven: %v", name, r)
		}
	}
	r := inWindow(f.session, start.Add(-policy.ReplayPast))
	if r == nil || r.RetryAfter != 0 {
		t.Errorf("what is too old: %v, and it does not pass later", r)
	}
}

// The rate that docs/spec/envelope.md promises follows from the bounds.
func TestSeenRateIsDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/spec/envelope.md")
	if err != nil {
		t.Fatal(err)
	}
	seconds := int(seenLongest / time.Second)
	want := fmt.Sprintf("%d/s of one principal, %d/s of one tenant and %d/s in all", maxSeenPerPrincipal/seconds, maxSeenPerTenant/seconds, maxSeen/seconds)
	if !strings.Contains(string(doc), want) {
		t.Errorf("docs/spec/envelope.md does not say %q", want)
	}
}

// What the node cannot remember it does not let in, and says when to come again.
func TestSeenFullIsARefusal(t *testing.T) {
	f := newFixture(t)
	f.seen.take(seenIDOf([]byte("x")), "shop/checkout", start, start)
	f.seen.count["shop/checkout"] = maxSeenPerPrincipal
	e := f.signed("good", "telemetry.cpu")
	f.refused("full", "telemetry.cpu", e, wire.CodeUnavailable)
	if r, _ := f.send("telemetry.cpu", e); r.RetryAfter != seenStep {
		t.Errorf("retry after %v, want %v", r.RetryAfter, seenStep)
	}
	f.accepted("stored events do not need it", "orders.created", f.signed("good", "orders.created"))
}

// Every byte of what a client sends of a signed event, header block, data and subject:
// changed, it is not let in, but where the event stays the same: digits of a percent
// escape in the other case, and ce-specversion left out.
func TestEveryByteOfASignedPublishCounts(t *testing.T) {
	tried, same, accepted := 0, 0, 0
	for _, subject := range []string{"orders.signed", "orders.created", "telemetry.cpu"} {
		f := newFixture(t)
		e := f.signed("good", subject, setExt("mood", "50% ö"))
		header := []byte(wire.HeaderLine)
		header = append(cloudevent.AppendHeaders(header, e), '\r', '\n')
		payload := bytes.Clone(e.Data)
		on := []byte(subject)
		for part, b := range map[string][]byte{"header": header, "data": payload, "subject": on} {
			for i := range b {
				for _, mask := range []byte{0x01, 0x02, 0x10, 0x20, 0x80} {
					b[i] ^= mask
					f.session.Begin(start)
					r := f.session.Publish(&Publish{Subject: on, Header: header, Payload: payload})
					out := f.session.Flush(nil)
					if r == nil && f.sameEvent(frames(t, out)[0], e) {
						same++
						f.seen.steps = nil
					} else if r == nil {
						accepted++
						t.Errorf("%s, %s byte %d xor %#x: let in as another event", subject, part, i, mask)
					}
					b[i] ^= mask
					tried++
				}
			}
		}
		f.accepted("unchanged", subject, e)
	}
	t.Logf("%d mutations, %d let in as another event, %d as the same", tried, accepted, same)
	if same > 40 {
		t.Errorf("%d mutations make the same event", same)
	}
}

// sameEvent reports whether a frame holds the event that was signed, with what the
// broker adds, and both signatures of it.
func (f *fixture) sameEvent(fr frame, signed *cloudevent.Event) bool {
	stored := f.verify(fr)
	for _, name := range []string{wire.AttrAttestation, wire.AttrAuthID, wire.AttrAuthType} {
		stored.DelExt(name)
	}
	return stored.Equal(signed)
}

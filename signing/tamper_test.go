package signing

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
)

// tamperCases are attested events of every shape: alone and in a batch, with all
// attributes and with few, with a time that needs exacttime.
func tamperCases(t testing.TB) map[string]*cloudevent.Event {
	t.Helper()
	s := testSigner(t, fillBroker)
	cases := make(map[string]*cloudevent.Event)
	for name, n := range map[string]int{"single": 1, "batch of 2": 2, "batch of 32": 32, "batch of 5": 5} {
		for i := range 4 {
			events := run(n)
			at := n / 2
			switch i {
			case 1:
				events[at] = plainEvent(at)
			case 2:
				events[at].Time = []byte("2026-11-22T08:30:00.120+01:00")
			case 3:
				events[at].Data = nil
			}
			attest(t, s, testSubject, events...)
			cases[name+[]string{"", ", few attributes", ", exact time", ", no data"}[i]] = events[at]
		}
	}
	return cases
}

var masks = []byte{0x01, 0x02, 0x10, 0x20, 0x80}

// Any change of any one byte of any attribute value, attribute name, of the data,
// the subject or the attestation is refused, with a verifier that has seen the root
// and with one that has not, and in the expanded form too.
func TestEveryByteCounts(t *testing.T) {
	ring := testRing(t)
	warm := testVerifier(ring)
	tried := 0
	for name, good := range tamperCases(t) {
		if _, err := warm.Verify(good, testSubject); err != nil {
			t.Fatalf("%s: the base case must pass: %v", name, err)
		}
		material, err := Expand(good, testSubject, ring)
		if err != nil {
			t.Fatal(err)
		}
		refuse := func(what string, e *cloudevent.Event, subject string, covered bool) {
			t.Helper()
			tried++
			if _, err := warm.Verify(e, subject); err == nil {
				t.Errorf("%s: %s: accepted", name, what)
			}
			if covered {
				if err := VerifyDSSE(material, e, subject, ring); err == nil {
					t.Errorf("%s: %s: accepted as dssematerial", name, what)
				}
			}
		}
		e := good.Clone()
		masks := masks
		if raceEnabled { // the detector makes this ten times as slow and finds nothing here
			masks = masks[:1]
		}
		flip := func(what string, b []byte, covered bool) {
			t.Helper()
			for i := range b {
				for _, m := range masks {
					b[i] ^= m
					refuse(what, e, testSubject, covered)
					b[i] ^= m
				}
			}
		}
		flip("id", e.ID, true)
		flip("source", e.Source, true)
		flip("type", e.Type, true)
		flip("datacontenttype", e.ContentType, true)
		flip("dataschema", e.DataSchema, true)
		flip("subject", e.Subject, true)
		flip("time", e.Time, true)
		flip("data", e.Data, true)
		for i := range e.Ext {
			own := string(e.Ext[i].Name) == wire.AttrAttestation
			flip("value of "+string(good.Ext[i].Name), e.Ext[i].Value, !own)
			flip("name of "+string(good.Ext[i].Name), e.Ext[i].Name, !own)
		}
		subject := []byte(testSubject)
		for i := range subject {
			for _, m := range masks {
				subject[i] ^= m
				refuse("NATS subject", good, string(subject), true)
				subject[i] ^= m
			}
		}
		if !e.Equal(good) {
			t.Fatal("the test left the event changed")
		}
		if _, err := warm.Verify(e, testSubject); err != nil {
			t.Errorf("%s: the restored event: %v", name, err)
		}
	}
	t.Logf("%d mutations refused", tried)
}

// The same for the text of a dssematerial.
func TestEveryByteOfADSSEMaterialCounts(t *testing.T) {
	ring := testRing(t)
	tried := 0
	for name, e := range tamperCases(t) {
		if strings.Contains(name, ",") {
			continue
		}
		material, err := Expand(e, testSubject, ring)
		if err != nil {
			t.Fatal(err)
		}
		if err := VerifyDSSE(material, e, testSubject, ring); err != nil {
			t.Fatalf("%s: the base case must pass: %v", name, err)
		}
		b := []byte(material)
		for i := range b {
			for _, m := range masks {
				b[i] ^= m
				if err := VerifyDSSE(string(b), e, testSubject, ring); err == nil {
					t.Errorf("%s: byte %d xor %#x: accepted", name, i, m)
				}
				b[i] ^= m
				tried++
			}
		}
		for _, text := range []string{material + "\n", material[:40] + "\r\n" + material[40:], strings.TrimRight(material, "=") + "====", material[4:]} {
			if err := VerifyDSSE(text, e, testSubject, ring); err == nil {
				t.Errorf("%s: accepted %q", name, text)
			}
		}
	}
	t.Logf("%d mutations refused", tried)
}

// Cutting, growing or removing anything is refused.
func TestLengthsCount(t *testing.T) {
	v := testVerifier(testRing(t))
	for name, good := range tamperCases(t) {
		edits := map[string]func(b []byte) []byte{
			"cut":     func(b []byte) []byte { return b[:len(b)-1] },
			"grown":   func(b []byte) []byte { return append(bytes.Clone(b), 'A') },
			"removed": func([]byte) []byte { return nil },
			"doubled": func(b []byte) []byte { return append(bytes.Clone(b), b...) },
		}
		for what, edit := range edits {
			for i := range 8 {
				e := good.Clone()
				fields := []*[]byte{&e.ID, &e.Source, &e.Type, &e.ContentType, &e.DataSchema, &e.Subject, &e.Time, &e.Data}
				if len(*fields[i]) == 0 {
					continue
				}
				*fields[i] = edit(*fields[i])
				if _, err := v.Verify(e, testSubject); err == nil {
					t.Errorf("%s: field %d %s: accepted", name, i, what)
				}
			}
			for i := range good.Ext {
				e := good.Clone()
				e.Ext[i].Value = edit(e.Ext[i].Value)
				if _, err := v.Verify(e, testSubject); err == nil {
					t.Errorf("%s: %s %s: accepted", name, e.Ext[i].Name, what)
				}
			}
		}
	}
}

func TestAddedAndRemovedAttributes(t *testing.T) {
	v := testVerifier(testRing(t))
	for name, good := range tamperCases(t) {
		for _, a := range good.Ext {
			e := good.Clone()
			e.DelExt(string(a.Name))
			if _, err := v.Verify(e, testSubject); err == nil {
				t.Errorf("%s: without %s: accepted", name, a.Name)
			}
		}
		for _, added := range []string{"a", "zz", "mood", wire.AttrDSSE, wire.AttrSequence, wire.AttrExpiryTime, wire.AttrPartitionKey, AttrExactTime, wire.AttrNATSSubject, "attestation2"} {
			if good.Get(added) != nil {
				continue
			}
			e := good.Clone()
			e.SetExt([]byte(added), []byte("x"))
			if _, err := v.Verify(e, testSubject); err == nil {
				t.Errorf("%s: with %s added: accepted", name, added)
			}
		}
		for i := range 3 { // core attributes that were absent
			e := good.Clone()
			field := []*[]byte{&e.DataSchema, &e.Subject, &e.Data}[i]
			if len(*field) > 0 {
				continue
			}
			*field = []byte("x")
			if _, err := v.Verify(e, testSubject); err == nil {
				t.Errorf("%s: core field %d added: accepted", name, i)
			}
		}
		// The derived attribute may stand on the wire if it says what is signed.
		e := good.Clone()
		e.SetExt([]byte(wire.AttrNATSSubject), []byte(testSubject))
		if _, err := v.Verify(e, testSubject); err != nil {
			t.Errorf("%s: with its natssubject on the wire: %v", name, err)
		}
	}
}

// A value moved from one attribute to the next, with both names there, is another
// event.
func TestSwappedValues(t *testing.T) {
	v := testVerifier(testRing(t))
	good := testEvent(0)
	attest(t, testSigner(t, fillBroker), testSubject, good)
	for i := range good.Ext {
		for j := range i {
			e := good.Clone()
			e.Ext[i].Value, e.Ext[j].Value = e.Ext[j].Value, e.Ext[i].Value
			if _, err := v.Verify(e, testSubject); err == nil {
				t.Errorf("%s and %s swapped: accepted", e.Ext[i].Name, e.Ext[j].Name)
			}
		}
	}
	e := good.Clone()
	e.Source, e.Type = e.Type, e.Source
	if _, err := v.Verify(e, testSubject); !errors.Is(err, ErrBadSignature) {
		t.Errorf("source and type swapped: got %v", err)
	}
}

func TestCrossSubject(t *testing.T) {
	v := testVerifier(testRing(t))
	for name, e := range tamperCases(t) {
		for _, subject := range []string{"orders.us.created", "orders.eu", "orders.eu.created.x", "ORDERS.eu.created", ">"} {
			if _, err := v.Verify(e, subject); !errors.Is(err, ErrBadSignature) {
				t.Errorf("%s on %q: got %v, want ErrBadSignature", name, subject, err)
			}
		}
		if _, err := v.Verify(e, ""); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s on no subject: got %v, want ErrMalformed", name, err)
		}
	}
}

// Within one batch, no attestation fits another event, nor another index.
func TestIndexSwapWithinABatch(t *testing.T) {
	v := testVerifier(testRing(t))
	for _, n := range []int{2, 3, 5, 32} {
		events := run(n)
		attest(t, testSigner(t, fillBroker), testSubject, events...)
		for i := range events {
			for j := range events {
				e := events[i].Clone()
				e.SetExt([]byte(wire.AttrAttestation), events[j].Get(wire.AttrAttestation))
				_, err := v.Verify(e, testSubject)
				if (err == nil) != (i == j) {
					t.Errorf("batch of %d: event %d with the attestation of %d: %v", n, i, j, err)
				}
				// The same path under another index.
				var raw [maxCompact]byte
				c, err := parseText(events[i].Get(wire.AttrAttestation), &raw)
				if err != nil {
					t.Fatal(err)
				}
				c.index = j
				e.SetExt([]byte(wire.AttrAttestation), c.appendText(nil))
				if _, err := v.Verify(e, testSubject); (err == nil) != (i == j) {
					t.Errorf("batch of %d: leaf %d as leaf %d: %v", n, i, j, err)
				}
			}
		}
	}
}

// A signature over an inner node as if it were a leaf, a tree of another size, and
// a root signature offered as the bare signature of an event are all refused.
func TestLeafNodeAndKindConfusion(t *testing.T) {
	v, s := testVerifier(testRing(t)), testSigner(t, fillBroker)
	events := run(4)
	attest(t, s, testSubject, events...)
	var raw [maxCompact]byte
	for what, change := range map[string]func(c *compact){
		"inner node as a leaf of a tree of two": func(c *compact) { c.index, c.size, c.path = c.index/2, 2, c.path[sumBytes:] },
		"smaller tree":                          func(c *compact) { c.size = 3 },
		"larger tree":                           func(c *compact) { c.size = 5; c.path = append(bytes.Clone(c.path), c.path[:sumBytes]...) },
		"root signature as a bare signature":    func(c *compact) { c.size, c.path = 1, nil },
		"path in the other order":               func(c *compact) { c.path = append(bytes.Clone(c.path[sumBytes:]), c.path[:sumBytes]...) },
	} {
		for _, e := range events {
			c, err := parseText(e.Get(wire.AttrAttestation), &raw)
			if err != nil {
				t.Fatal(err)
			}
			change(&c)
			tampered := e.Clone()
			tampered.SetExt([]byte(wire.AttrAttestation), c.appendText(nil))
			if _, err := v.Verify(tampered, testSubject); err == nil {
				t.Errorf("%s: accepted", what)
			}
		}
	}
	// A leaf is not a node: the leaf hash of two concatenated hashes differs from
	// their node hash.
	var tr tree
	tr.n = 2
	tr.nodes[0], tr.nodes[1] = hash{1}, hash{2}
	root := *tr.build()
	asLeaf := rootOf(root, 0, 1, nil)
	if leaf := leafOf(append(bytes.Clone(tr.nodes[0][:]), tr.nodes[1][:]...)); leaf == asLeaf {
		t.Error("a leaf passes for a node")
	}
	// A bare signature as a Merkle signature.
	single := testEvent(9)
	attest(t, s, testSubject, single)
	c, err := parseText(single.Get(wire.AttrAttestation), &raw)
	if err != nil {
		t.Fatal(err)
	}
	c.size, c.path = 2, make([]byte, sumBytes)
	single.SetExt([]byte(wire.AttrAttestation), c.appendText(nil))
	if _, err := v.Verify(single, testSubject); !errors.Is(err, ErrBadSignature) {
		t.Errorf("a bare signature as a root signature: got %v, want ErrBadSignature", err)
	}
}

// Expand loses nothing: what it writes holds the same signature, and the attested
// event keeps verifying.
func TestExpand(t *testing.T) {
	ring := testRing(t)
	for name, e := range tamperCases(t) {
		material, err := Expand(e, testSubject, ring)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		bare := e.Clone()
		bare.DelExt(wire.AttrAttestation)
		bare.SetExt([]byte(wire.AttrDSSE), []byte(material))
		if err := VerifyDSSE(material, bare, testSubject, ring); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		derived, err := DerivedAttributes(e, testSubject)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range derived {
			bare.SetExt(a.Name, a.Value)
		}
		if err := VerifyDSSE(material, bare, testSubject, ring); err != nil {
			t.Errorf("%s with its derived attributes: %v", name, err)
		}
		bare.SetExt([]byte(wire.AttrDSSE), []byte("e30="))
		if err := VerifyDSSE(material, bare, testSubject, ring); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s with another dssematerial: got %v, want ErrMalformed", name, err)
		}
	}
	if err := VerifyDSSE("", testEvent(0), testSubject, ring); !errors.Is(err, ErrMissing) {
		t.Errorf("no dssematerial: got %v, want ErrMissing", err)
	}
	if _, err := Expand(testEvent(0), testSubject, ring); !errors.Is(err, ErrMissing) {
		t.Errorf("no attestation: got %v, want ErrMissing", err)
	}
}

package signing

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing/keyring"
)

// The envelope and the body as encoding/json reads them.
type (
	oracleEnvelope struct {
		PayloadType string            `json:"payloadType"`
		Payload     []byte            `json:"payload"`
		Signatures  []oracleSignature `json:"signatures"`
	}
	oracleSignature struct {
		KeyID string `json:"keyid"`
		Sig   []byte `json:"sig"`
	}
	oracleBody struct {
		Core  []byte   `json:"core"`
		Ext   []byte   `json:"ext"`
		Names []string `json:"signedextattrs"`
	}
)

func oracleTime(s string) (time.Time, error) { return time.Parse(time.RFC3339Nano, s) }

var errOracle = errors.New("oracle: refused")

// oracleParse is material.parse, slowly: whatever encoding/json reads, if writing it
// again gives the same bytes.
func oracleParse(text []byte) (*oracleEnvelope, error) {
	b, err := base64.StdEncoding.DecodeString(string(text))
	if err != nil || len(text) > maxDSSEBytes || base64.StdEncoding.EncodeToString(b) != string(text) {
		return nil, errOracle
	}
	var env oracleEnvelope
	if err := json.Unmarshal(b, &env); err != nil {
		return nil, errOracle
	}
	var again bytes.Buffer
	enc := json.NewEncoder(&again)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(&env); err != nil || again.String() != string(b)+"\n" {
		return nil, errOracle
	}
	if env.PayloadType != PayloadType || len(env.Payload) == 0 || len(env.Signatures) == 0 || len(env.Signatures) > 4 {
		return nil, errOracle
	}
	seen := map[string]bool{}
	for _, s := range env.Signatures {
		if seen[s.KeyID] || len(s.KeyID) != 56 || strings.Trim(s.KeyID, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") != "" {
			return nil, errOracle
		}
		seen[s.KeyID] = true
		var c compact
		if len(s.Sig) != 64 && (len(s.Sig) == 0 || s.Sig[0] != kindMerkle || c.parseMerkle(s.Sig[1:]) != nil) {
			return nil, errOracle
		}
	}
	return &env, nil
}

// oracleVerify is ProducerVerifier.Verify, slowly and from the text of the
// specification: it takes the transmitted body apart instead of building one.
func oracleVerify(e *cloudevent.Event, subject string, ring *keyring.Ring) error {
	env, err := oracleParse(e.Get(wire.AttrDSSE))
	if err != nil {
		return err
	}
	var body oracleBody
	dec := json.NewDecoder(bytes.NewReader(env.Payload))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&body); err != nil || e.Validate() != nil {
		return errOracle
	}
	rec := string(e.Get(wire.AttrRecordedTime))
	when, err := oracleTime(rec)
	if err != nil || len(rec) != 20 {
		return errOracle
	}
	h := func(parts ...[]byte) []byte {
		var all []byte
		for _, p := range parts {
			s := sha256.Sum256(p)
			all = append(all, s[:]...)
		}
		s := sha256.Sum256(all)
		return s[:]
	}
	text := string(e.Time)
	t, err := oracleTime(text)
	if err != nil || len(e.ContentType) == 0 {
		return errOracle
	}
	values := map[string]string{"expirytime": "", "natssubject": subject, "partitionkey": "", "recordedtime": "", "sequence": ""}
	if t.UTC().Format("2006-01-02T15:04:05Z") != text {
		values["exacttime"] = text
	}
	for _, a := range e.Ext {
		switch name := string(a.Name); name {
		case "authid", "authtype", "attestation", "attestationmaterial", "dssematerial":
		case "natssubject", "exacttime":
			if values[name] != string(a.Value) {
				return errOracle
			}
		default:
			values[name] = string(a.Value)
		}
	}
	var names []string
	for name := range values {
		names = append(names, name)
	}
	slices.Sort(names)
	var ext [][]byte
	for _, name := range names {
		ext = append(ext, []byte(values[name]))
	}
	core := h(e.ID, e.Source, []byte("1.0"), e.Type, e.ContentType, e.DataSchema, e.Subject, []byte(t.UTC().Format("2006-01-02T15:04:05Z")), e.Data)
	if !slices.Equal(names, body.Names) || !bytes.Equal(core, body.Core) || !bytes.Equal(h(ext...), body.Ext) {
		return errOracle
	}
	pae := fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(PayloadType), PayloadType, len(env.Payload), env.Payload)
	for _, s := range env.Signatures {
		key, ok := ring.ByID(s.KeyID)
		if !ok || key.Role != keyring.RoleProducer || !key.ValidAt(when) || !key.CoversSource(string(e.Source)) || !key.CoversSubject(subject) {
			return errOracle
		}
		if first, _ := ring.ByID(env.Signatures[0].KeyID); first.Principal != key.Principal {
			return errOracle
		}
		if err := checkMaterial(s.Sig, &key, append([]byte{leafPrefix}, pae...)); err != nil {
			return err
		}
	}
	return nil
}

// edited undoes the base64, edits the JSON, and puts it back.
func edited(t testing.TB, material []byte, edit func(json string) string) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(string(material))
	if err != nil {
		t.Fatal(err)
	}
	out := edit(string(b))
	if out == string(b) {
		t.Fatal("the edit changed nothing")
	}
	return []byte(base64.StdEncoding.EncodeToString([]byte(out)))
}

// cosigned has the signatures of several producers over one body.
func cosigned(t testing.TB, e *cloudevent.Event, producers ...*Producer) []byte {
	t.Helper()
	var d digester
	if _, err := d.digestProducer(e, []byte(testSubject)); err != nil {
		t.Fatal(err)
	}
	env := oracleEnvelope{PayloadType: PayloadType, Payload: d.body}
	for _, p := range producers {
		env.Signatures = append(env.Signatures, oracleSignature{p.KeyID(), ed25519.Sign(p.signer.private, d.pae[1:])})
	}
	b, err := json.Marshal(&env)
	if err != nil {
		t.Fatal(err)
	}
	return []byte(base64.StdEncoding.EncodeToString(b))
}

// otherForms are texts that say the same as a good one, or nearly, and are no
// second way to write it.
func otherForms(t testing.TB, good []byte) map[string][]byte {
	t.Helper()
	edit := func(old, with string) []byte {
		return edited(t, good, func(s string) string { return strings.Replace(s, old, with, 1) })
	}
	s := string(good)
	forms := map[string][]byte{
		"not base64":               []byte("%" + s[1:]),
		"line end":                 []byte(s[:76] + "\r\n" + s[76:]),
		"line end behind":          []byte(s + "\n"),
		"more padding":             []byte(s + "="),
		"cut":                      good[:len(good)-4],
		"over 4 KiB":               bytes.Repeat([]byte("AAAA"), 1025),
		"empty object":             []byte("e30="),
		"white space":              edit(`,"payload"`, `, "payload"`),
		"other payload type":       edit(PayloadType, "application/vnd.in-toto+json"),
		"escape in the type":       edit("https://", `https:\/\/`),
		"members in another order": edited(t, good, func(s string) string { return swapMembers(s) }),
		"duplicate member":         edit(`"payload":`, `"payload":"e30=","payload":`),
		"duplicate keyid":          edit(`"keyid":`, `"keyid":"A","keyid":`),
		"unknown member":           edit(`{"payloadType"`, `{"x":1,"payloadType"`),
		"unknown member of a signature": edited(t, good, func(s string) string {
			return strings.Replace(s, `","sig":`, `","cert":"x","sig":`, 1)
		}),
		"other letter case": edit(`"payload":`, `"Payload":`),
		"no signature":      edited(t, good, func(s string) string { return s[:strings.Index(s, `[{`)] + "[]}" }),
		"nested signatures": edited(t, good, func(s string) string { return strings.Replace(s, `[{`, strings.Repeat("[", 17)+`{`, 1) }),
		"value behind":      edited(t, good, func(s string) string { return s + "{}" }),
		"URL-safe payload":  edited(t, good, func(s string) string { return strings.Replace(s, `"payload":"`, `"payload":"-_`, 1) }),
		"lower case keyid":  edited(t, good, func(s string) string { i := strings.Index(s, `"keyid":"`) + 9; return s[:i] + "u" + s[i+1:] }),
		"short sig": edited(t, good, func(s string) string {
			i := strings.Index(s, `"sig":"`) + 7
			return s[:i] + "AAAA" + s[strings.LastIndex(s, `"}]}`):]
		}),
	}
	return forms
}

func swapMembers(s string) string {
	i, j := strings.Index(s, `"payload":`), strings.Index(s, `,"signatures"`)
	return "{" + s[i:j] + `,` + s[1:i-1] + s[j:]
}

func TestMaterialHasOneForm(t *testing.T) {
	ring := producerRing(t)
	v := testProducerVerifier(ring)
	for _, n := range []int{1, 2} {
		events := []*cloudevent.Event{unsigned(0), unsigned(1)}[:n]
		produce(t, testProducer(t, fillEvents), testSubject, events...)
		good := bytes.Clone(events[0].Get(wire.AttrDSSE))
		if err := checkMaterialForm(good); err != nil {
			t.Fatalf("the base case must pass: %v", err)
		}
		for name, text := range otherForms(t, good) {
			if err := checkMaterialForm(text); !errors.Is(err, ErrMalformed) {
				t.Errorf("%s: got %v, want ErrMalformed", name, err)
			}
			e := events[0].Clone()
			e.SetExt([]byte(wire.AttrDSSE), text)
			if _, err := v.Verify(e, testSubject); !errors.Is(err, ErrMalformed) {
				t.Errorf("%s: Verify: got %v, want ErrMalformed", name, err)
			}
		}
	}
}

func TestSeveralSignatures(t *testing.T) {
	v := testProducerVerifier(producerRing(t))
	a, b, other, stranger := testProducer(t, fillEvents), testProducer(t, fillAccount), testProducer(t, fillOther), testProducer(t, fillStranger)
	late, bounded := testProducer(t, fillLate), testProducer(t, fillBounded)
	for _, tc := range []struct {
		name string
		by   []*Producer
		want error
	}{
		{"two keys of one principal", []*Producer{a, b}, nil},
		{"the limit is not reached", []*Producer{a, b, bounded}, nil},
		{"another principal", []*Producer{a, other}, ErrKeyNotValid},
		{"an unknown key", []*Producer{a, stranger}, ErrUnknownKey},
		{"a key that is over", []*Producer{a, late}, ErrKeyNotValid},
		{"the same key twice", []*Producer{a, a}, ErrMalformed},
		{"five", []*Producer{a, b, bounded, other, late}, ErrMalformed},
	} {
		e := unsigned(0)
		e.SetExt([]byte(wire.AttrDSSE), cosigned(t, e, tc.by...))
		got, err := v.Verify(e, testSubject)
		if !errors.Is(err, tc.want) || err == nil && got.KeyID != tc.by[0].KeyID() {
			t.Errorf("%s: got %+v (%v), want %v", tc.name, got, err, tc.want)
		}
		if (oracleVerify(e, testSubject, producerRing(t)) == nil) != (err == nil) {
			t.Errorf("%s: the oracle disagrees with %v", tc.name, err)
		}
	}
	// All must hold, not one.
	e := unsigned(0)
	text := cosigned(t, e, a, b)
	e.SetExt([]byte(wire.AttrDSSE), edited(t, text, func(s string) string {
		i := strings.LastIndex(s, `"sig":"`) + 7
		return s[:i] + string(s[i]^1) + s[i+1:]
	}))
	if _, err := v.Verify(e, testSubject); err == nil {
		t.Error("one signature of two does not hold: accepted")
	}
}

// FuzzProducerMaterial: the decoder and the verifier accept exactly what the slow
// ones accept.
func FuzzProducerMaterial(f *testing.F) {
	ring := producerRing(f)
	v := testProducerVerifier(ring)
	events := []*cloudevent.Event{unsigned(0), unsigned(1)}
	produce(f, testProducer(f, fillEvents), testSubject, events...)
	single := unsigned(0)
	produce(f, testProducer(f, fillAccount), testSubject, single)
	for _, e := range append(events, single) {
		text := e.Get(wire.AttrDSSE)
		f.Add(bytes.Clone(text))
		b, err := base64.StdEncoding.DecodeString(string(text))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add(cosigned(f, single, testProducer(f, fillEvents), testProducer(f, fillAccount)))
	for _, text := range otherForms(f, single.Get(wire.AttrDSSE)) {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		// As it is, and as the JSON inside.
		for _, text := range [][]byte{text, []byte(base64.StdEncoding.EncodeToString(text))} {
			env, want := oracleParse(text)
			var m material
			if err := m.parse(text); (err == nil) != (want == nil) {
				t.Fatalf("parse: %v, oracle: %v, for %q", err, want, text)
			} else if err == nil {
				if !bytes.Equal(m.body, env.Payload) || m.n != len(env.Signatures) {
					t.Fatalf("parsed %q and %d signatures, oracle %q and %d", m.body, m.n, env.Payload, len(env.Signatures))
				}
				for i := range m.n {
					if string(m.sigs[i].keyID) != env.Signatures[i].KeyID || len(m.sigs[i].single) == 64 && !bytes.Equal(m.sigs[i].single, env.Signatures[i].Sig) {
						t.Fatalf("signature %d differs from the oracle's", i)
					}
				}
			}
			for _, e := range append(events, single) {
				e := e.Clone()
				e.SetExt([]byte(wire.AttrDSSE), text)
				_, err := v.Verify(e, testSubject)
				if want := oracleVerify(e, testSubject, ring); (err == nil) != (want == nil) {
					t.Fatalf("Verify: %v, oracle: %v, for %q", err, want, text)
				}
			}
		}
	})
}

// The verifier and the oracle agree on events too, whatever is changed of them.
func TestProducerVerifierAgreesWithTheOracle(t *testing.T) {
	ring := producerRing(t)
	v := testProducerVerifier(ring)
	good := unsigned(0)
	good.Time = []byte("2026-11-22T08:30:00.120+01:00")
	produce(t, testProducer(t, fillBounded), testSubject, good)
	n, ok := 0, 0
	try := func(what string, e *cloudevent.Event, subject string) {
		t.Helper()
		_, err := v.Verify(e, subject)
		want := oracleVerify(e, subject, ring)
		if (err == nil) != (want == nil) {
			t.Errorf("%s: got %v, oracle %v", what, err, want)
		}
		n++
		if err == nil {
			ok++
		}
	}
	try("as it is", good, testSubject)
	try("another subject", good, "orders.eu.paid")
	for _, name := range []string{"authid", "authtype", "zzz", "natssubject", "exacttime", "sequence2", "expirytime"} {
		for _, value := range []string{testSubject, string(good.Time), "x", "2026-11-22T07:30:00Z"} {
			e := good.Clone()
			e.SetExt([]byte(name), []byte(value))
			try(name+"="+value, e, testSubject)
		}
	}
	for i := range good.Ext {
		e := good.Clone()
		e.DelExt(string(good.Ext[i].Name))
		try("without "+string(good.Ext[i].Name), e, testSubject)
	}
	for _, when := range []string{"2026-11-22T07:30:00.120Z", "2026-11-22T07:30:00Z", "x", ""} {
		e := good.Clone()
		e.Time = []byte(when)
		try("time "+when, e, testSubject)
	}
	if ok < 10 || ok > n/2 {
		t.Errorf("%d of %d accepted: the cases no longer tell anything", ok, n)
	}
	t.Logf("%d of %d accepted by both", ok, n)
}

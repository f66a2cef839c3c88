package keyring

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/signing/internal/dsse"
)

var update = flag.Bool("update", false, "write docs/spec/vectors/keyring.json")

const vectorFile = "../../docs/spec/vectors/keyring.json"

type (
	ringVectors struct {
		Format string       `json:"format"`
		Note   string       `json:"note"`
		Root   string       `json:"root"`
		Cases  []ringVector `json:"cases"`
	}
	ringVector struct {
		Name     string    `json:"name"`
		Held     string    `json:"held,omitempty"` // the document that the reader has
		Document string    `json:"document"`
		Now      time.Time `json:"now"`
		Result   string    `json:"result"`
	}
)

// ringResult is what reading document gives, as the vectors name it.
func ringResult(t *testing.T, root string, v *ringVector) string {
	t.Helper()
	r, err := Parse([]byte(v.Document), root, v.Now)
	if err == nil && v.Held != "" {
		held, bad := Parse([]byte(v.Held), root, day0)
		if bad != nil {
			t.Fatal(bad)
		}
		err = r.Replaces(held)
	}
	for name, known := range map[string]error{
		"malformed": ErrMalformed, "badSignature": ErrBadSignature, "invalid": ErrInvalid, "expired": ErrExpired, "rollback": ErrRollback,
	} {
		if errors.Is(err, known) {
			return name
		}
	}
	if err != nil {
		return err.Error()
	}
	return "ok"
}

// madeRingVectors makes the vectors from what each case should be, without asking Parse.
func madeRingVectors(t *testing.T) *ringVectors {
	t.Helper()
	rootSeed := seed(t, nkeys.PrefixByteOperator, 9)
	root := public(t, rootSeed)
	sign := func(by []byte, payloadType, payload string) string {
		_, raw, err := nkeys.DecodeSeed(by)
		if err != nil {
			t.Fatal(err)
		}
		sig := ed25519.Sign(ed25519.NewKeyFromSeed(raw), dsse.AppendPAE(nil, payloadType, []byte(payload)))
		return string(dsse.Append(nil, &dsse.Envelope{PayloadType: payloadType, Payload: []byte(payload), KeyID: public(t, by), Sig: sig}))
	}
	producer := Key{
		ID: public(t, seed(t, nkeys.PrefixByteAccount, 3)), Alg: AlgEd25519, Role: RoleProducer, Principal: "shop/checkout",
		Sources: []string{"/shop/*"}, Subjects: []string{"orders.>"}, NotBefore: day0, NotAfter: year,
	}
	revoked := brokerKey(t, 2)
	revoked.RevokedAt = day1
	r, err := New(7, day0, year, []Key{brokerKey(t, 1), revoked, producer, recipientKey(t, 4, "shop/doctor", "care.>")})
	if err != nil {
		t.Fatal(err)
	}
	good := string(r.payload())
	doc := sign(rootSeed, PayloadType, good)
	edit := func(old, with string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("the payload has no %q", old)
		}
		return sign(rootSeed, PayloadType, strings.Replace(good, old, with, 1))
	}
	cases := []ringVector{
		{Name: "all roles, one key revoked", Document: doc, Now: day0, Result: "ok"},
		{Name: "last second", Document: doc, Now: year.Add(-time.Second), Result: "ok"},
		{Name: "the reader's clock an hour before it was issued", Document: doc, Now: day0.Add(-time.Hour), Result: "ok"},
		{Name: "expired", Document: doc, Now: year, Result: "expired"},
		{Name: "expired an hour ago", Document: doc, Now: year.Add(time.Hour), Result: "expired"},
		{Name: "the same ring again", Held: doc, Document: doc, Now: day0, Result: "ok"},
		{Name: "a newer version", Held: doc, Document: edit(`"version":7`, `"version":8`), Now: day0, Result: "ok"},
		{Name: "an older version", Held: doc, Document: edit(`"version":7`, `"version":6`), Now: day0, Result: "rollback"},
		{Name: "other content under the same version", Held: doc, Document: edit(`"node-1"`, `"node-2"`), Now: day0, Result: "rollback"},
		{Name: "signed by another root", Document: sign(seed(t, nkeys.PrefixByteOperator, 8), PayloadType, good), Now: day0, Result: "badSignature"},
		{Name: "signed by a key of the ring", Document: sign(seed(t, nkeys.PrefixByteServer, 1), PayloadType, good), Now: day0, Result: "badSignature"},
		{Name: "payload changed", Document: strings.Replace(doc, `"payload":"ey`, `"payload":"ez`, 1), Now: day0, Result: "badSignature"},
		{Name: "broken base64", Document: strings.Replace(doc, `"payload":"ey`, `"payload":"e*`, 1), Now: day0, Result: "malformed"},
		{Name: "white space in the envelope", Document: strings.Replace(doc, `,"payload"`, `, "payload"`, 1), Now: day0, Result: "malformed"},
		{Name: "line end behind the envelope", Document: doc + "\n", Now: day0, Result: "malformed"},
		{Name: "no envelope", Document: good, Now: day0, Result: "malformed"},
		{Name: "payload type of an event", Document: sign(rootSeed, "https://cloudevents.io/verifiability/dsse/v0.1", good), Now: day0, Result: "malformed"},
		{Name: "payload type of a version to come", Document: sign(rootSeed, "application/vnd.signet.keyring.v2+json", good), Now: day0, Result: "malformed"},
		{Name: "unknown member", Document: edit(`"version":7,`, `"version":7,"x":1,`), Now: day0, Result: "malformed"},
		{Name: "repeated member", Document: edit(`"version":7,`, `"version":7,"version":7,`), Now: day0, Result: "malformed"},
		{Name: "other letter case", Document: edit(`"version"`, `"Version"`), Now: day0, Result: "malformed"},
		{Name: "escape", Document: edit(`"node-1"`, `"\u006eode-1"`), Now: day0, Result: "malformed"},
		{Name: "time with a fraction", Document: edit(`2026-11-22T00:00:00Z`, `2026-11-22T00:00:00.0Z`), Now: day0, Result: "malformed"},
		{Name: "empty revokedAt", Document: edit(`"revokedAt":"2026-11-23T00:00:00Z"`, `"revokedAt":""`), Now: day0, Result: "malformed"},
		{Name: "second value", Document: sign(rootSeed, PayloadType, good+"{}"), Now: day0, Result: "malformed"},
		{Name: "version 0", Document: edit(`"version":7`, `"version":0`), Now: day0, Result: "invalid"},
		{Name: "version over 2^53-1", Document: edit(`"version":7`, `"version":9007199254740992`), Now: day0, Result: "invalid"},
		{Name: "unknown role", Document: edit(`"role":"producer"`, `"role":"root"`), Now: day0, Result: "invalid"},
		{Name: "unknown algorithm", Document: edit(`"ed25519"`, `"rsa"`), Now: day0, Result: "invalid"},
		{Name: "a checksum that does not fit its key", Document: edit(`"id":"A`, `"id":"X`), Now: day0, Result: "invalid"},
		{Name: "a node's key as a producer", Document: edit(`"role":"broker"`, `"role":"producer"`), Now: day0, Result: "invalid"},
		{Name: "a recipient's key as a broker", Document: edit(`"x25519","role":"recipient"`, `"ed25519","role":"broker"`), Now: day0, Result: "invalid"},
	}
	return &ringVectors{
		Format: "signet-vectors-keyring/v1", Root: root, Cases: cases,
		Note: "docs/spec/envelope.md section 8. Verify document under root at now; if there is held, which was verified before, document is to take its place. That gives result.",
	}
}

// TestVectors: the vector file is what the specification says, and this reader gives
// every result of it.
func TestVectors(t *testing.T) {
	made := madeRingVectors(t)
	var want bytes.Buffer
	enc := json.NewEncoder(&want)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	if err := enc.Encode(made); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(vectorFile, want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(vectorFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(text, want.Bytes()) {
		t.Error("the vector file is stale: run go test ./signing/keyring -run TestVectors -update, and review the difference: it is a change of format")
	}
	var file ringVectors
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for i := range file.Cases {
		v := &file.Cases[i]
		if got := ringResult(t, file.Root, v); got != v.Result {
			t.Errorf("%s: got %s, want %s", v.Name, got, v.Result)
		}
		count[v.Result]++
	}
	t.Logf("%d cases: %v", len(file.Cases), count)
}

package signing_test

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"encoding/base32"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
)

// What stands between the marks is in docs/guides/verify-an-event.md, word for word.

// begin guide

// nodeKey is a key of the keyring: the 32 bytes inside its nkeys text.
type nodeKey struct {
	id     string
	public ed25519.PublicKey
}

func parseKey(id string) (nodeKey, error) {
	raw, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(id)
	if err != nil || len(raw) != 35 {
		return nodeKey{}, errors.New("not an nkeys public key")
	}
	return nodeKey{id, raw[1:33]}, nil // a prefix byte, the key, a checksum of two bytes
}

func (k nodeKey) KeyID() (string, error)   { return k.id, nil }
func (k nodeKey) Public() crypto.PublicKey { return k.public }
func (k nodeKey) Verify(_ context.Context, pae, sig []byte) error {
	if !ed25519.Verify(k.public, pae, sig) {
		return errors.New("the signature does not match")
	}
	return nil
}

// open verifies an envelope with one key and returns what was signed.
func open(envelope []byte, payloadType string, key nodeKey) ([]byte, error) {
	var env dsse.Envelope
	if err := json.Unmarshal(envelope, &env); err != nil {
		return nil, err
	}
	if env.PayloadType != payloadType {
		return nil, errors.New("an envelope of another kind")
	}
	v, err := dsse.NewEnvelopeVerifier(key)
	if err != nil {
		return nil, err
	}
	if _, err := v.Verify(context.Background(), &env); err != nil {
		return nil, err
	}
	return env.DecodeB64Payload()
}

// end guide

// TestGuideWithAStockLibrary runs the code of the guide for auditors over the vectors:
// the keyring, and each receipt with every key of it.
func TestGuideWithAStockLibrary(t *testing.T) {
	guide, err := os.ReadFile("../docs/guides/verify-an-event.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("guide_test.go")
	if err != nil {
		t.Fatal(err)
	}
	_, code, _ := strings.Cut(string(source), "// begin guide\n\n")
	code, _, _ = strings.Cut(code, "\n// end guide")
	if code == "" || !strings.Contains(string(guide), code) {
		t.Error("the Go code of the guide is not the one that is tested here")
	}
	text, err := os.ReadFile("../docs/spec/vectors/receipt.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Keyring struct{ Root, Document string }
		Cases   []struct {
			Name, Receipt, Result string
			Event                 json.RawMessage
		}
	}
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	root, err := parseKey(file.Keyring.Root)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := open([]byte(file.Keyring.Document), "application/vnd.signet.keyring.v1+json", root)
	if err != nil {
		t.Fatal(err)
	}
	var ring struct{ Keys []struct{ ID, Role string } }
	if err := json.Unmarshal(payload, &ring); err != nil || len(ring.Keys) == 0 {
		t.Fatalf("%d keys: %v", len(ring.Keys), err)
	}
	opened := 0
	for _, c := range file.Cases {
		good := false
		for _, k := range ring.Keys {
			key, err := parseKey(k.ID)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := open([]byte(c.Receipt), "application/vnd.signet.receipt.v1+json", key); err == nil && k.Role == "broker" {
				good = true
			}
		}
		switch {
		case c.Result == "ok" && !good:
			t.Errorf("%s: refused", c.Name)
		case (c.Result == "badSignature" || c.Result == "unknownKey") && good:
			t.Errorf("%s: accepted", c.Name)
		}
		if good {
			opened++
		}
	}
	if opened < 4 {
		t.Errorf("only %d receipts opened", opened)
	}
}

package payload_test

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"golang.org/x/crypto/nacl/box"
)

// TestVectorsByTheSpec reads the vectors with what docs/spec/encryption.md says and
// nothing of this module: whoever writes a reader in another language has no more.
func TestVectorsByTheSpec(t *testing.T) {
	raw, err := os.ReadFile("../../docs/spec/vectors/encryption.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Records, Events []map[string]string
	}
	if err := json.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	opened, decrypted := 0, 0
	for _, c := range file.Events {
		contentType, data, ok := decryptBySpec(t, c)
		if ok != (c["result"] == "ok") || ok && (contentType != c["contentType"] || hex.EncodeToString(data) != c["data"]) {
			t.Errorf("event %s: got %q %q %v, want %s", c["name"], contentType, data, ok, c["result"])
		}
		if ok {
			decrypted++
		}
	}
	for _, c := range file.Records {
		if c["result"] == "record" {
			continue // of form, which a lenient reader does not look at
		}
		key, id := openBySpec(t, c)
		if ok := key != nil && id == idBySpec(key); ok != (c["result"] == "ok") || ok && (hex.EncodeToString(key) != c["key"] || id != c["keyId"]) {
			t.Errorf("record %s: got %x, id %s, want %s", c["name"], key, id, c["result"])
		} else if ok {
			opened++
		}
	}
	if opened < 2 || decrypted < 5 {
		t.Errorf("%d records, %d events: too few say anything", opened, decrypted)
	}
}

func idBySpec(key []byte) string {
	sum := sha256.Sum256(append([]byte("signet-enc-v1\x00"), key...))
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:]))
}

func decryptBySpec(t *testing.T, c map[string]string) (contentType string, data []byte, ok bool) {
	t.Helper()
	key, err := hex.DecodeString(c["key"])
	if err != nil {
		t.Fatal(err)
	}
	frame, err := hex.DecodeString(c["frame"])
	if err != nil {
		t.Fatal(err)
	}
	if idBySpec(key) != c["keyId"] || len(frame) < 31 || frame[0] != 1 {
		return "", nil, false
	}
	aad := []byte{1}
	for _, name := range []string{"keyId", "principal", "natsSubject", "source", "id", "type"} {
		aad = append(binary.BigEndian.AppendUint32(aad, uint32(len(c[name]))), c[name]...)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := gcm.Open(nil, frame[1:13], frame[13:], aad)
	if err != nil {
		return "", nil, false
	}
	n := int(plain[0])<<8 | int(plain[1])
	if n > 1024 || 2+n > len(plain) {
		return "", nil, false
	}
	return string(plain[2 : 2+n]), plain[2+n:], true
}

// openBySpec returns what is in the box of the reader, nil if there is none or it cannot
// be opened, and the id that the record names.
func openBySpec(t *testing.T, c map[string]string) (key []byte, id string) {
	t.Helper()
	var rec struct {
		KeyID      string `json:"keyId"`
		Sender     string
		Recipients []struct{ Key, Wrapped string }
	}
	if err := json.Unmarshal([]byte(c["record"]), &rec); err != nil {
		t.Fatal(err)
	}
	unbase := func(s string, skip int) (out [32]byte) {
		b, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(s)
		if err != nil || len(b) < skip+32 {
			t.Fatalf("%s: %q: %v", c["name"], s, err)
		}
		return [32]byte(b[skip:])
	}
	seed, sender := unbase(c["seed"], 2), unbase(rec.Sender, 1)
	private, err := ecdh.X25519().NewPrivateKey(seed[:])
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rec.Recipients {
		if public := unbase(r.Key, 1); string(public[:]) != string(private.PublicKey().Bytes()) {
			continue
		}
		wrapped, err := base64.StdEncoding.DecodeString(r.Wrapped)
		if err != nil || len(wrapped) != 76 || string(wrapped[:4]) != "xkv1" {
			t.Fatalf("%s: %q: %v", c["name"], wrapped, err)
		}
		nonce := [24]byte(wrapped[4:28])
		key, _ := box.Open(nil, wrapped[28:], &nonce, &sender, &seed)
		return key, rec.KeyID
	}
	return nil, rec.KeyID
}

package admin

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"

	"github.com/signetbus/signet/internal/adminapi"
)

// A record says which keyring was brought and whom it was meant to cut off, and has nothing
// of what the keyring says.
func TestArgumentsNameTheDocument(t *testing.T) {
	doc := []byte(`{"payload":"not on record"}`)
	body, err := json.Marshal(adminapi.KeysPutRequest{Document: doc, CutOff: []string{"n2"}})
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(doc)
	want := `cutOff=["n2"] document=` + hex.EncodeToString(sum[:])
	if got := arguments(body); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, body := range []string{`{"document":7}`, `{"document":""}`, `{"document":"*"}`, `{"cutOff":"` + strings.Repeat("x", 200) + `"}`, `{`} {
		if got := arguments([]byte(body)); got != "" {
			t.Errorf("%s: %q", body, got)
		}
	}
}

package gate

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/signetbus/signet/broker/identity"
)

func FuzzConnect(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"verbose":false,"pedantic":true,"headers":true,"no_responders":true,"nkey":"U","sig":"x","protocol":1}`,
		`{"nkey":"a","NKEY":"b"}`, `{"nkey":"a","nkey":"b"}`, `{"a":[[[]]],"user":"u"}`, `{"verbose":null}`, `[]`, `{} {}`, "{\"name\":\"\xff\"}",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var o connectOptions
		var c identity.Credentials
		if err := parseConnect(bytes.Clone(text), &o, &c); err != nil {
			return
		}
		var m map[string]any
		if err := json.Unmarshal(text, &m); err != nil {
			t.Fatalf("%q was taken: %v", text, err)
		}
		for name, got := range map[string]string{"nkey": c.NkeyPublic, "sig": c.Signature, "jwt": c.JWT, "user": c.User, "pass": c.Pass, "auth_token": c.AuthToken} {
			if want, _ := m[name].(string); got != want {
				t.Errorf("%q: %s is %q, want %q", text, name, got, want)
			}
		}
		if _, err := o.upstream("ticket"); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	})
}

package admission

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing/payload"
)

// TestEncryptedSubject: the encrypted form and nothing else gets in, in every mode of
// CloudEvents, and is stored as it came.
func TestEncryptedSubject(t *testing.T) {
	frame := append([]byte{1}, bytes.Repeat([]byte{0xfe}, payload.Overhead+4)...)
	key := strings.Repeat("q", payload.KeyIDLength)
	contentType, keyID := "ce-datacontenttype: "+wire.EncryptedContentType, "ce-enckeyid: "+key
	structured := func(contentType, key string, data []byte) string {
		return fmt.Sprintf(`{"specversion":"1.0","id":"1","source":"/shop/checkout","type":"orders.secret","datacontenttype":%q,"enckeyid":%q,"data_base64":%q}`,
			contentType, key, base64.StdEncoding.EncodeToString(data))
	}
	const jsonMode = "content-type: " + wire.StructuredContentType
	for _, c := range []struct {
		name, data string
		lines      []string
		ok         bool
	}{
		{"binary mode", string(frame), []string{contentType, keyID}, true},
		{"structured mode", structured(wire.EncryptedContentType, key, frame), []string{jsonMode}, true},
		{"raw bytes", string(frame), nil, false},
		{"raw bytes with the content type of the transport", string(frame), []string{"content-type: " + wire.EncryptedContentType, keyID}, true},
		{"plain", `{"id":1}`, []string{"ce-datacontenttype: application/json", keyID}, false},
		{"no key id", string(frame), []string{contentType}, false},
		{"a key id that is none", string(frame), []string{contentType, "ce-enckeyid: " + key[1:] + "1"}, false},
		{"no frame", "", []string{contentType, keyID}, false},
		{"a frame too short", string(frame[:payload.Overhead-1]), []string{contentType, keyID}, false},
		{"another version", "\x02" + string(frame[1:]), []string{contentType, keyID}, false},
		{"structured, plain", structured("text/plain", key, frame), []string{jsonMode}, false},
		{"structured, no key id", strings.Replace(structured(wire.EncryptedContentType, key, frame), "enckeyid", "otherid", 1), []string{jsonMode}, false},
		{"plain, with an attribute of the broker", "secret", []string{"ce-datacontenttype: text/plain", "ce-authid: shop/checkout"}, false},
		{"plain, with a signature that is none", "secret", []string{"ce-datacontenttype: text/plain", "ce-dssematerial: bm9uZQ=="}, false},
		{"plain, with a type that is not granted", "secret", []string{"ce-datacontenttype: text/plain", "ce-type: com.elsewhere"}, false},
		{"structured, no frame", structured(wire.EncryptedContentType, key, []byte("x")), []string{jsonMode}, false},
	} {
		f := newFixture(t)
		r, out := f.one("orders.secret", c.data, c.lines...)
		switch {
		case !c.ok && (r == nil || r.Code != wire.CodeEncryptionRequired || r.Rule != "subject orders.secret" || r.Detail == ""):
			t.Errorf("%s: got %v, want %v", c.name, r, wire.CodeEncryptionRequired)
		case !c.ok && f.session.Rejection().Store:
			t.Errorf("%s: kept as a dead letter", c.name)
		case c.ok && r != nil:
			t.Errorf("%s: %v", c.name, r)
		case c.ok:
			e := f.verify(frames(t, []byte(out))[0])
			if string(e.Get(wire.AttrEncryptionKey)) != key || !bytes.Equal(e.Data, frame) {
				t.Errorf("%s: stored as %q", c.name, out)
			}
		}
	}
	f := newFixture(t)
	if r, _ := f.one("orders.checked", string(frame), contentType, keyID); r == nil || r.Code != wire.CodeEncryptionNotDeclared || !strings.Contains(r.Detail, "order@2") {
		t.Errorf("where there is a schema: %v", r)
	}
	if r, _ := f.one("orders.other", string(frame), contentType, keyID); r != nil {
		t.Errorf("where nothing is said: %v", r)
	}

	p := &Publish{Subject: []byte("orders.secret"), Header: block("ce-type: orders.secret", contentType, keyID), Payload: frame}
	var out []byte
	f.listener.forgets = true
	run := func() {
		f.session.Begin(start)
		for range 32 {
			if r := f.session.Publish(p); r != nil {
				t.Fatal(r)
			}
		}
		out = f.session.Flush(out[:0])
	}
	run()
	if n := testing.AllocsPerRun(50, run); n > 3.2 && !raceEnabled {
		t.Errorf("%.1f allocations for 32 events", n)
	}
}

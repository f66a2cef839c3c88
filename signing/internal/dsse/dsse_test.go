package dsse

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestPAEOfTheStandard(t *testing.T) {
	// The example of secure-systems-lab/dsse protocol.md.
	got := AppendPAE(nil, "http://example.com/HelloWorld", []byte("hello world"))
	want := "DSSEv1 29 http://example.com/HelloWorld 11 hello world"
	if string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestParse(t *testing.T) {
	e := &Envelope{PayloadType: "t/1", Payload: []byte("hello"), KeyID: "KEY", Sig: []byte{1, 2, 3, 4}}
	good := string(Append(nil, e))
	back, err := Parse([]byte(good))
	if err != nil {
		t.Fatal(err)
	}
	if back.PayloadType != e.PayloadType || back.KeyID != e.KeyID || !bytes.Equal(back.Payload, e.Payload) || !bytes.Equal(back.Sig, e.Sig) {
		t.Errorf("got %+v, want %+v", back, e)
	}
	bad := map[string]string{
		"empty":            "",
		"space":            strings.Replace(good, `","payload`, `", "payload`, 1),
		"trailing bytes":   good + "\n",
		"leading bytes":    " " + good,
		"unknown member":   strings.Replace(good, `]}`, `],"x":1}`, 1),
		"duplicate member": strings.Replace(good, `]}`, `],"payload":"aGVsbG8="}`, 1),
		"second signature": strings.Replace(good, `}]}`, `},{"keyid":"KEY","sig":"AQIDBA=="}]}`, 1),
		"no padding":       strings.Replace(good, "aGVsbG8=", "aGVsbG8", 1),
		"trailing bits":    strings.Replace(good, "aGVsbG8=", "aGVsbG9=", 1),
		"base64 newline":   strings.Replace(good, "aGVsbG8=", "aGVs\nbG8=", 1),
		"escape":           strings.Replace(good, "KEY", `\u004bEY`, 1),
		"empty keyid":      strings.Replace(good, "KEY", "", 1),
		"cut":              good[:len(good)-1],
	}
	for name, in := range bad {
		if _, err := Parse([]byte(in)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(Append(nil, &Envelope{PayloadType: "t", Payload: []byte("x"), KeyID: "K", Sig: []byte("y")}))
	f.Add([]byte(`{"payloadType":"t","payload":"","signatures":[{"keyid":"K","sig":""}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := Parse(b)
		if err != nil {
			return
		}
		if got := Append(nil, e); !bytes.Equal(got, b) {
			t.Errorf("got %q, want %q", got, b)
		}
	})
}

package cloudevent

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"testing"

	"github.com/signetbus/signet/internal/wire"
)

// FuzzHeaders: a header block that decodes is written, parsed and decoded again
// to the same event.
func FuzzHeaders(f *testing.F) {
	for _, s := range []string{
		"", "ce-id: 1\r\n", "ce-id: 1\r\nce-id: 1\r\n", "Ce-id: 1\r\n", "ce-source: /a\r\nce-x: %E2%82%AC\r\n",
		"ce-a: 1\r\nce-c: 3\r\nce-b: 2\r\n", "Content-Type: text/plain; charset=utf-8\r\nce-time: 2026-11-22T13:24:51Z\r\n",
		"ce-specversion: 1.0\r\nce-subject: a%2541%25%0d%0a\r\n", "ce-x: Ω \"q\"\r\n", "ce-x: %\r\n", "ce-x: %ff%00\r\n",
		"content-type: application/cloudevents+json\r\n", "ce-data: x\r\n",
	} {
		f.Add([]byte(s), []byte("data"))
	}
	f.Fuzz(func(t *testing.T, lines, data []byte) {
		var h wire.Headers
		if h.Parse(slices.Concat([]byte(wire.HeaderLine), lines, []byte("\r\n"))) != nil {
			return
		}
		var e, back Event
		var s, s2 Scratch
		err := e.FromHeaders(&h, data, &s)
		m := map[string][]string{}
		for _, l := range h.All() {
			m[string(l.Name)] = append(m[string(l.Name)], string(l.Value))
		}
		var viaMap Event
		if mapErr := viaMap.FromHeaderMap(m, data); (err == nil) != (mapErr == nil) {
			t.Fatalf("FromHeaders says %v, FromHeaderMap says %v", err, mapErr)
		}
		if err != nil {
			return
		}
		if !viaMap.Equal(&e) {
			t.Fatal("FromHeaderMap decodes another event")
		}
		block := append(AppendHeaders([]byte(wire.HeaderLine), &e), "\r\n"...)
		var h2 wire.Headers
		if err := h2.Parse(block); err != nil {
			if errors.Is(err, wire.ErrHeaderSize) || errors.Is(err, wire.ErrHeaderCount) {
				return // encoding made it longer than a client may send
			}
			t.Fatalf("own block %q does not parse: %v", block, err)
		}
		if err := back.FromHeaders(&h2, data, &s2); err != nil {
			t.Fatalf("own block %q does not decode: %v", block, err)
		}
		if !back.Equal(&e) || !bytes.Equal(back.Data, data) {
			t.Fatalf("round trip changed the event: %q", block)
		}
		if e.Validate() == nil && len(block)-len(wire.HeaderLine)-2 > MaxAttrBytes {
			t.Fatalf("valid event of %d header bytes", len(block))
		}
		checkViaJSON(t, &e)
	})
}

// checkViaJSON: a valid event survives structured mode.
func checkViaJSON(t *testing.T, e *Event) {
	if e.Validate() != nil {
		return
	}
	var back Event
	text := AppendJSON(nil, e)
	if err := back.FromJSON(text, nil); err != nil || !back.Equal(e) {
		t.Fatalf("structured mode changed the event: %s, %v", text, err)
	}
}

// FuzzJSON: what we read, encoding/json reads with the same values; and writing
// and reading again gives the same event.
func FuzzJSON(f *testing.F) {
	for _, s := range []string{
		event(""), event(`"data":{"a":[1,2,{"b":null}]}`), event(`"data_base64":"AAH/"`), event(`"a":true,"b":-5,"c":null,"d":"\u00e9\ud83d\ude00"`),
		event(`"datacontenttype":"text/plain","data":"x\ty"`), event(`"id":"2"`), event(`"data":1,"data_base64":""`), event(`"a":"\ud800"`),
		`{"specversion":"1.0","time":"2026-11-22T13:24:51Z","subject":"s","dataschema":"urn:x"}`, ` { } `, `{"specversion":"1.0"}x`,
		event(`"data":"\"` + "\xc3\xa9" + `"`), event(`"n":1e400`), event(`"data":-0.5E+7`), event(`"data":null,"datacontenttype":null`),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var e Event
		var s Scratch
		in := slices.Clone(text)
		if err := e.FromJSON(in, &s); err != nil {
			if !errors.Is(err, ErrJSON) {
				t.Fatalf("error %v is not ErrJSON", err)
			}
			return
		}
		if !bytes.Equal(in, text) {
			t.Fatal("FromJSON wrote into its input")
		}
		checkOracle(t, &e, text)
		out := AppendJSON(nil, &e)
		if !json.Valid(out) {
			t.Fatalf("AppendJSON wrote %s", out)
		}
		var back Event
		if err := back.FromJSON(out, nil); err != nil || !back.Equal(&e) {
			t.Fatalf("round trip of %s gives %s: %v", text, out, err)
		}
	})
}

// checkOracle compares e with what encoding/json makes of text.
func checkOracle(t *testing.T, e *Event, text []byte) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(text, &members); err != nil {
		t.Fatalf("we accept %q, encoding/json does not: %v", text, err)
	}
	attrs := 1 // specversion
	for name, raw := range members {
		var v any
		if err := json.Unmarshal(raw, &v); err != nil && name != "data" {
			t.Fatalf("member %s: %v", name, err)
		}
		if name == "data" {
			if JSONContent(e.ContentType) {
				if !bytes.Equal(e.Data, raw) {
					t.Fatalf("data = %q, want %q", e.Data, raw)
				}
			} else if s, ok := v.(string); !ok || string(e.Data) != s {
				t.Fatalf("data = %q, want %q", e.Data, v)
			}
			continue
		}
		want := ""
		switch v := v.(type) {
		case string:
			want = v
		case bool:
			want = strconv.FormatBool(v)
		case float64:
			want = strconv.FormatFloat(v, 'f', -1, 64)
		case nil:
		default:
			t.Fatalf("member %s of type %T accepted", name, v)
		}
		if name == "data_base64" {
			d, err := base64.StdEncoding.DecodeString(want)
			if err != nil || !bytes.Equal(d, e.Data) {
				t.Fatalf("data = %q, want %q, %v", e.Data, d, err)
			}
			continue
		}
		if name == "datacontenttype" && want == "" && members["data"] != nil {
			want, attrs = "application/json", attrs-1
		}
		if got := string(e.Get(name)); got != want {
			t.Fatalf("%s = %q, want %q", name, got, want)
		}
		if want != "" && name != "specversion" {
			attrs++
		}
	}
	if members["data"] != nil && (members["datacontenttype"] == nil || string(members["datacontenttype"]) == "null") {
		attrs++ // implied
	}
	got := 1 + len(e.Ext)
	for _, v := range [][]byte{e.ID, e.Source, e.Type, e.ContentType, e.DataSchema, e.Subject, e.Time} {
		if len(v) > 0 {
			got++
		}
	}
	if got != attrs {
		t.Fatalf("%d attributes, want %d", got, attrs)
	}
}

package cloudevent

import (
	"errors"
	"net/http"
	"strings"
	"testing"
)

func TestHTTPHeader(t *testing.T) {
	e := full()
	h := http.Header{}
	if err := AppendHTTPHeader(h, e); err != nil {
		t.Fatal(err)
	}
	for name := range h {
		if http.CanonicalHeaderKey(name) != name {
			t.Errorf("%q is not the form of http.Header", name)
		}
	}
	var back Event
	if err := back.FromHTTPHeader(h, e.Data); err != nil || !back.Equal(e) {
		t.Fatalf("%v: got %s, want %s", err, AppendJSON(nil, &back), AppendJSON(nil, e))
	}
	for name, row := range map[string]struct {
		change func(h map[string][]string)
		want   error
	}{
		"two values":         {func(h map[string][]string) { h["Ce-Id"] = []string{"1", "2"} }, ErrDuplicate},
		"two letter cases":   {func(h map[string][]string) { h["ce-id"] = h["Ce-Id"] }, ErrDuplicate},
		"two content types":  {func(h map[string][]string) { h["content-type"] = h["Content-Type"] }, ErrDuplicate},
		"an attribute of it": {func(h map[string][]string) { h["Ce-Datacontenttype"] = h["Content-Type"] }, ErrDuplicate},
		"structured":         {func(h map[string][]string) { h["Content-Type"] = []string{"application/cloudevents+json"} }, ErrMode},
		"version":            {func(h map[string][]string) { h["Ce-Specversion"] = []string{"0.3"} }, ErrVersion},
		"encoding":           {func(h map[string][]string) { h["Ce-Id"] = []string{"%2"} }, ErrEncoding},
		"empty":              {func(h map[string][]string) { h["Ce-Id"] = []string{""} }, ErrAttribute},
	} {
		bad := h.Clone()
		row.change(bad)
		if err := back.FromHTTPHeader(bad, nil); !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v", name, err, row.want)
		}
	}
	for _, ct := range []string{"application/cloudevents+json", "text/é", " text/plain", "text/plain "} {
		e := full()
		e.ContentType = []byte(ct)
		if err := AppendHTTPHeader(http.Header{}, e); err == nil {
			t.Errorf("content type %q: taken", ct)
		}
	}
}

func TestKafka(t *testing.T) {
	e := full()
	e.SetExt([]byte("partitionkey"), []byte("key é"))
	r, err := e.Kafka()
	if err != nil {
		t.Fatal(err)
	}
	if string(r.Key) != "key é" {
		t.Errorf("key %q", r.Key)
	}
	for _, h := range r.Headers {
		if h.Key != "content-type" && !strings.HasPrefix(h.Key, "ce_") || strings.Contains(string(h.Value), "%C3") {
			t.Errorf("header %q: %q", h.Key, h.Value)
		}
	}
	var back Event
	if err := back.FromKafka(&r); err != nil || !back.Equal(e) {
		t.Fatalf("%v: got %s, want %s", err, AppendJSON(nil, &back), AppendJSON(nil, e))
	}
	with := func(hs ...KafkaHeader) []KafkaHeader { return append(append([]KafkaHeader(nil), r.Headers...), hs...) }
	many := with()
	for i := range MaxExtensions + 1 {
		many = append(many, KafkaHeader{"ce_x" + string(rune('a'+i/26)) + string(rune('a'+i%26)), []byte("x")})
	}
	for name, row := range map[string]struct {
		r    KafkaRecord
		want error
	}{
		"tombstone":             {KafkaRecord{Key: r.Key, Headers: r.Headers}, ErrMode},
		"another key":           {KafkaRecord{Key: []byte("k"), Headers: r.Headers, Value: r.Value}, ErrAttribute},
		"no key":                {KafkaRecord{Headers: r.Headers, Value: r.Value}, ErrAttribute},
		"twice":                 {KafkaRecord{Key: r.Key, Headers: with(KafkaHeader{"ce_id", []byte("2")}), Value: r.Value}, ErrDuplicate},
		"letter case":           {KafkaRecord{Key: r.Key, Headers: with(KafkaHeader{"CE_x", []byte("2")}), Value: r.Value}, ErrHeaderCase},
		"name in letter case":   {KafkaRecord{Key: r.Key, Headers: with(KafkaHeader{"ce_X", []byte("2")}), Value: r.Value}, ErrHeaderCase},
		"two content types":     {KafkaRecord{Key: r.Key, Headers: with(KafkaHeader{"Content-Type", []byte("a/b")}), Value: r.Value}, ErrDuplicate},
		"content type as an":    {KafkaRecord{Key: r.Key, Headers: with(KafkaHeader{"ce_datacontenttype", []byte("a/b")}), Value: r.Value}, ErrDuplicate},
		"empty":                 {KafkaRecord{Key: r.Key, Headers: with(KafkaHeader{"ce_x", nil}), Value: r.Value}, ErrAttribute},
		"many":                  {KafkaRecord{Key: r.Key, Headers: many, Value: r.Value}, ErrTooMany},
		"structured":            {KafkaRecord{Headers: []KafkaHeader{{"content-type", []byte("application/cloudevents+json")}}, Value: []byte("{}")}, ErrMode},
		"version":               {KafkaRecord{Headers: []KafkaHeader{{"ce_specversion", []byte("1.1")}}, Value: []byte{}}, ErrVersion},
		"a name that is data":   {KafkaRecord{Headers: []KafkaHeader{{"ce_data", []byte("x")}}, Value: []byte{}}, ErrAttribute},
		"a name with a hyphens": {KafkaRecord{Headers: []KafkaHeader{{"ce_a-b", []byte("x")}}, Value: []byte{}}, ErrAttribute},
	} {
		if err := back.FromKafka(&row.r); !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v", name, err, row.want)
		}
	}
	empty := Event{ID: []byte("1"), Source: []byte("/"), Type: []byte("t")}
	if r, err := empty.Kafka(); err != nil || r.Value == nil {
		t.Errorf("empty data becomes a tombstone (%v)", err)
	}
	e.ContentType = []byte("application/cloudevents")
	if _, err := e.Kafka(); !errors.Is(err, ErrMode) {
		t.Errorf("structured content type: %v", err)
	}
}

// FuzzKafka: what decodes and is valid is written again as the same.
func FuzzKafka(f *testing.F) {
	f.Add("ce_id", []byte("1"), "ce_x", []byte("é"), []byte("data"), []byte(nil))
	f.Add("content-type", []byte("application/cloudevents"), "ce_data", []byte(""), []byte(nil), []byte("k"))
	f.Fuzz(func(t *testing.T, n1 string, v1 []byte, n2 string, v2, data, key []byte) {
		r := KafkaRecord{Key: key, Value: data, Headers: []KafkaHeader{{"ce_id", []byte("i")}, {"ce_source", []byte("/s")}, {"ce_type", []byte("t")}, {n1, v1}, {n2, v2}}}
		var e, back Event
		if e.FromKafka(&r) != nil || e.Validate() != nil {
			return
		}
		again, err := e.Kafka()
		if err != nil {
			t.Fatalf("it decodes and cannot be encoded: %v", err)
		}
		if err := back.FromKafka(&again); err != nil || !back.Equal(&e) {
			t.Errorf("%v: got %s, want %s", err, AppendJSON(nil, &back), AppendJSON(nil, &e))
		}
	})
}

// FuzzHTTPHeader: what decodes and is valid is written again as the same, and names count
// once whatever their case.
func FuzzHTTPHeader(f *testing.F) {
	f.Add("Ce-Id", "1", "CE-X", "%C3%A9", []byte("data"))
	f.Add("Content-Type", "application/cloudevents+json", "ce-data", "", []byte(nil))
	f.Add("Content-Type", "text/plain; charset=utf-8", "Ce-Datacontenttype", "a/b", []byte("x"))
	f.Add("Ce-A", "%", "cE-a", "%2", []byte(nil))
	f.Fuzz(func(t *testing.T, n1, v1, n2, v2 string, body []byte) {
		h := map[string][]string{"Ce-Specversion": {"1.0"}, "Ce-Id": {"i"}, "Ce-Source": {"/s"}, "Ce-Type": {"t"}}
		h[n1] = append(h[n1], v1)
		h[n2] = append(h[n2], v2)
		var e, back Event
		if e.FromHTTPHeader(h, body) != nil || e.Validate() != nil {
			return
		}
		again := map[string][]string{}
		if AppendHTTPHeader(again, &e) != nil {
			return // it says of what it could not carry unchanged that it could not
		}
		if err := back.FromHTTPHeader(again, e.Data); err != nil || !back.Equal(&e) {
			t.Errorf("%v: got %s, want %s", err, AppendJSON(nil, &back), AppendJSON(nil, &e))
		}
	})
}

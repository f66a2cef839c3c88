package cloudevent

import (
	"errors"
	"strings"
	"testing"

	"github.com/signetbus/signet/internal/wire"
)

// parse makes Headers from lines without line ends.
func parse(t testing.TB, lines ...string) *wire.Headers {
	t.Helper()
	h := new(wire.Headers)
	if err := h.Parse([]byte(wire.HeaderLine + strings.Join(append(lines, "", ""), "\r\n"))); err != nil {
		t.Fatalf("Parse(%q): %v", lines, err)
	}
	return h
}

func TestFromHeaders(t *testing.T) {
	min := []string{"ce-id: 1", "ce-source: /s", "ce-type: t"}
	tests := []struct {
		name  string
		lines []string
		attr  string
		want  string
		err   error
	}{
		{"no headers", nil, "id", "", nil},
		{"plain", min, "source", "/s", nil},
		{"other headers are left alone", []string{"Nats-Msg-Id: 5", "x: y", "ce: z", "cee-id: q", "ce-id: 1"}, "id", "1", nil},
		{"version", []string{"ce-specversion: 1.0"}, "specversion", "1.0", nil},
		{"version encoded", []string{"ce-specversion: 1%2e0"}, "specversion", "1.0", nil},
		{"version 0.3", []string{"ce-specversion: 0.3"}, "", "", ErrVersion},
		{"version twice", []string{"ce-specversion: 1.0", "ce-specversion: 1.0"}, "", "", ErrDuplicate},
		{"decoded once", []string{"ce-subject: a%2541"}, "subject", "a%41", nil},
		{"decoded", []string{"ce-subject: Euro%20%E2%82%AC%20%f0%9F%98%80"}, "subject", "Euro € 😀", nil},
		{"raw UTF-8 and space", []string{"ce-subject: Euro €"}, "subject", "Euro €", nil},
		{"percent at the end", []string{"ce-subject: a%"}, "", "", ErrEncoding},
		{"percent and one digit", []string{"ce-subject: a%4"}, "", "", ErrEncoding},
		{"percent and no hex", []string{"ce-subject: a%4g"}, "", "", ErrEncoding},
		{"percent and no hex first", []string{"ce-subject: a%g4"}, "", "", ErrEncoding},
		{"extension", []string{"ce-traceparent: 00-a"}, "traceparent", "00-a", nil},
		{"extension of 20", []string{"ce-aaaaabbbbbcccccddddd: v"}, "aaaaabbbbbcccccddddd", "v", nil},
		{"extension of 21", []string{"ce-aaaaabbbbbcccccddddde: v"}, "", "", ErrAttribute},
		{"empty value", []string{"ce-subject:"}, "", "", ErrAttribute},
		{"empty extension", []string{"ce-x: "}, "", "", ErrAttribute},
		{"no name", []string{"ce-: v"}, "", "", ErrAttribute},
		{"name with dash", []string{"ce-a-b: v"}, "", "", ErrAttribute},
		{"name with underscore", []string{"ce-data_base64: v"}, "", "", ErrAttribute},
		{"data", []string{"ce-data: v"}, "", "", ErrAttribute},
		{"upper prefix", []string{"Ce-id: 1"}, "", "", ErrHeaderCase},
		{"upper prefix 2", []string{"cE-id: 1"}, "", "", ErrHeaderCase},
		{"upper name", []string{"ce-Id: 1"}, "", "", ErrHeaderCase},
		{"upper beside lower", []string{"ce-id: 1", "CE-ID: 2"}, "", "", ErrHeaderCase},
		{"core twice", []string{"ce-id: 1", "ce-id: 1"}, "", "", ErrDuplicate},
		{"extension twice", []string{"ce-x: 1", "ce-a: 1", "ce-x: 2"}, "", "", ErrDuplicate},
		{"content type", []string{"content-type: text/plain; charset=utf-8"}, "datacontenttype", "text/plain; charset=utf-8", nil},
		{"content type of any case, not decoded", []string{"Content-Type: a/b%41"}, "datacontenttype", "a/b%41", nil},
		{"ce-datacontenttype", []string{"ce-datacontenttype: a/b;%20c=d"}, "datacontenttype", "a/b; c=d", nil},
		{"both agree", []string{"Content-Type: a/b", "ce-datacontenttype: a/b"}, "datacontenttype", "a/b", nil},
		{"both differ", []string{"ce-datacontenttype: a/b", "Content-Type: a/c"}, "", "", ErrDuplicate},
		{"two content types", []string{"content-type: a/b", "Content-Type: a/b"}, "", "", ErrDuplicate},
		{"structured", []string{"content-type: application/cloudevents+json"}, "", "", ErrMode},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var e Event
			var s Scratch
			err := e.FromHeaders(parse(t, tt.lines...), []byte("d"), &s)
			if !errors.Is(err, tt.err) {
				t.Fatalf("error = %v, want %v", err, tt.err)
			}
			if err != nil {
				if !strings.HasPrefix(err.Error(), "cloudevent: ") {
					t.Errorf("error text %q lacks the package name", err)
				}
				return
			}
			if got := string(e.Get(tt.attr)); got != tt.want || string(e.Data) != "d" {
				t.Errorf("%s = %q, want %q; data %q", tt.attr, got, tt.want, e.Data)
			}
		})
	}
}

// TestFromHeaderMapAgrees runs the same messages through the map form, where they
// can be written as a map.
func TestFromHeaderMapAgrees(t *testing.T) {
	tests := []struct {
		name string
		h    map[string][]string
		err  error
	}{
		{"all", map[string][]string{"ce-id": {"a%20b"}, "ce-x": {"1"}, "Content-Type": {"a/b"}, "Nats-Msg-Id": {"1", "2"}}, nil},
		{"none", nil, nil},
		{"two values", map[string][]string{"ce-id": {"1", "1"}}, ErrDuplicate},
		{"no value", map[string][]string{"ce-id": {}}, ErrDuplicate},
		{"upper case", map[string][]string{"ce-id": {"1"}, "Ce-Id": {"1"}}, ErrHeaderCase},
		{"two content types", map[string][]string{"content-type": {"a/b"}, "Content-Type": {"a/b"}}, ErrDuplicate},
		{"structured", map[string][]string{"Content-Type": {"application/cloudevents+json"}}, ErrMode},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var e Event
			if err := e.FromHeaderMap(tt.h, []byte("d")); !errors.Is(err, tt.err) {
				t.Fatalf("error = %v, want %v", err, tt.err)
			}
			if tt.name == "all" && (string(e.ID) != "a b" || string(e.Get("x")) != "1" || string(e.ContentType) != "a/b" || string(e.Data) != "d") {
				t.Errorf("event = %s", AppendJSON(nil, &e))
			}
		})
	}
}

func TestIsStructured(t *testing.T) {
	tests := []struct {
		name  string
		lines []string
		want  bool
		err   error
	}{
		{"none", nil, false, nil},
		{"json", []string{"Content-Type: application/json"}, false, nil},
		{"structured", []string{"content-type: application/cloudevents+json"}, true, nil},
		{"any case", []string{"CONTENT-TYPE: Application/CloudEvents+JSON ; Charset=UTF-8"}, true, nil},
		{"quoted charset", []string{`content-type: application/cloudevents+json;charset="utf-8"`}, true, nil},
		{"other charset", []string{"content-type: application/cloudevents+json; charset=latin1"}, false, ErrMode},
		{"other parameter", []string{"content-type: application/cloudevents+json; charset=utf-8; x=y"}, false, ErrMode},
		{"batch", []string{"content-type: application/cloudevents-batch+json"}, false, ErrMode},
		{"avro", []string{"content-type: application/cloudevents+avro"}, false, ErrMode},
		{"no format", []string{"content-type: application/cloudevents"}, false, ErrMode},
		{"two", []string{"content-type: application/json", "Content-Type: application/cloudevents+json"}, false, ErrDuplicate},
		{"binary headers beside it", []string{"content-type: application/cloudevents+json", "ce-id: 1"}, false, ErrMode},
		{"binary headers in upper case", []string{"CE-ID: 1", "content-type: application/cloudevents+json"}, false, ErrMode},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := IsStructured(parse(t, tt.lines...))
			if got != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("IsStructured = %v, %v; want %v, %v", got, err, tt.want, tt.err)
			}
		})
	}
}

func TestAppendHeaders(t *testing.T) {
	e := full()
	e.SetExt([]byte("zz"), []byte("a\r\nNats-Rollup: all\x00\"%\x7f\xff"))
	e.SetExt([]byte("empty"), nil)
	want := "ce-specversion: 1.0\r\nce-id: a1\r\nce-source: /shop/checkout\r\nce-type: order.created\r\n" +
		"ce-datacontenttype: application/json\r\nce-dataschema: https://example.com/s/1\r\nce-subject: order%2017\r\n" +
		"ce-time: 2026-11-22T13:24:51Z\r\nce-authid: shop/checkout\r\nce-partitionkey: stra%C3%9Fe\r\nce-sequence: 17\r\n" +
		"ce-zz: a%0D%0ANats-Rollup:%20all%00%22%25%7F%FF\r\n"
	if got := string(AppendHeaders([]byte("x"), e)); got != "x"+want {
		t.Errorf("AppendHeaders =\n%q\nwant\n%q", got, want)
	}
	if got := string(AppendHeaders(nil, &Event{})); got != "ce-specversion: 1.0\r\n" {
		t.Errorf("of the zero event: %q", got)
	}
}

// TestScratchIsReused shows what a scratch promises: no allocation once it has
// grown, and no view of one event inside another's growth.
func TestScratchIsReused(t *testing.T) {
	var e Event
	var s Scratch
	h := parse(t, "ce-id: a%20b", "ce-source: %2fs", "ce-type: t%20t", "ce-x: "+strings.Repeat("%41", 200))
	if err := e.FromHeaders(h, nil, &s); err != nil {
		t.Fatal(err)
	}
	if string(e.ID) != "a b" || string(e.Source) != "/s" || string(e.Get("x")) != strings.Repeat("A", 200) {
		t.Fatalf("event = %s", AppendJSON(nil, &e))
	}
	n := cap(s)
	if err := e.FromHeaders(parse(t, "ce-id: %42"), nil, &s); err != nil || string(e.ID) != "B" || cap(s) != n || len(e.Ext) != 0 {
		t.Fatalf("second use: %v, id %q, cap %d want %d, %d extensions", err, e.ID, cap(s), n, len(e.Ext))
	}
	if err := e.FromHeaders(h, nil, nil); err != nil || string(e.ID) != "a b" || string(e.Type) != "t t" {
		t.Fatalf("without scratch: %v, id %q, type %q", err, e.ID, e.Type)
	}
}

func hotPath(t testing.TB) func() {
	h := parse(t, "ce-specversion: 1.0", "ce-id: 01JD3Q5V", "ce-source: /shop/checkout", "ce-type: order.created",
		"ce-time: 2026-11-22T13:24:51.25Z", "ce-subject: Euro%20%E2%82%AC", "Content-Type: application/json",
		"ce-partitionkey: 17", "ce-traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "Nats-Msg-Id: 1")
	data := []byte(`{"order":17}`)
	var e Event
	var s Scratch
	dst := make([]byte, 0, 4096)
	return func() {
		if structured, err := IsStructured(h); structured || err != nil {
			t.Fatal(structured, err)
		}
		if err := e.FromHeaders(h, data, &s); err != nil {
			t.Fatal(err)
		}
		if err := e.Validate(); err != nil {
			t.Fatal(err)
		}
		e.SetExt(extName, extValue)
		dst = AppendHeaders(dst[:0], &e)
	}
}

var extName, extValue = []byte("authid"), []byte("shop/checkout")

func TestHotPathDoesNotAllocate(t *testing.T) {
	run := hotPath(t)
	run()
	if n := testing.AllocsPerRun(200, run); n != 0 {
		t.Errorf("binary mode round trip: %v allocations, want 0", n)
	}
	var e Event
	var s Scratch
	in := AppendJSON(nil, full())
	in = append(in[:len(in)-1], `,"esc":"a\u00e9","n":5}`...)
	dst := make([]byte, 0, 4096)
	run = func() {
		if err := e.FromJSON(in, &s); err != nil {
			t.Fatal(err)
		}
		dst = AppendJSON(dst[:0], &e)
	}
	run()
	if n := testing.AllocsPerRun(200, run); n != 0 {
		t.Errorf("structured mode round trip: %v allocations, want 0", n)
	}
}

func BenchmarkBinaryRoundTrip(b *testing.B) {
	run := hotPath(b)
	b.ReportAllocs()
	for b.Loop() {
		run()
	}
}

func BenchmarkFromJSON(b *testing.B) {
	in := AppendJSON(nil, full())
	var e Event
	var s Scratch
	b.ReportAllocs()
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		if err := e.FromJSON(in, &s); err != nil {
			b.Fatal(err)
		}
	}
}

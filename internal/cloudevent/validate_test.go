package cloudevent

import (
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestValidate(t *testing.T) {
	set := func(name, value string) func(*Event) {
		return func(e *Event) {
			if s := e.slot([]byte(name)); s != nil {
				*s = []byte(value)
				return
			}
			e.SetExt([]byte(name), []byte(value))
		}
	}
	tests := []struct {
		name   string
		change func(*Event)
		err    error
	}{
		{"full", func(*Event) {}, nil},
		{"least", func(e *Event) { *e = Event{ID: e.ID, Source: e.Source, Type: e.Type} }, nil},
		{"no id", set("id", ""), ErrMissing},
		{"no source", set("source", ""), ErrMissing},
		{"no type", set("type", ""), ErrMissing},
		{"source urn", set("source", "urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66"), nil},
		{"source percent", set("source", "/a%20b"), nil},
		{"source bad percent", set("source", "/a%2"), ErrAttribute},
		{"source space", set("source", "/a b"), ErrAttribute},
		{"source not ASCII", set("source", "/é"), ErrAttribute},
		{"source bar", set("source", "/a|b"), ErrAttribute},
		{"source greater", set("source", "nats://a.b/>"), ErrAttribute},
		{"schema", set("dataschema", "urn:x"), nil},
		{"schema relative", set("dataschema", "/x:y"), ErrAttribute},
		{"schema without scheme", set("dataschema", ":x"), ErrAttribute},
		{"schema scheme only letters", set("dataschema", "abc"), ErrAttribute},
		{"schema not ASCII", set("dataschema", "urn:é"), ErrAttribute},
		{"time", set("time", "2026-02-30T00:00:00Z"), ErrAttribute},
		{"subject UTF-8", set("subject", "Ω 😀 \u00a0"), nil},
		{"subject not UTF-8", set("subject", "\xff"), ErrAttribute},
		{"subject control", set("subject", "a\tb"), ErrAttribute},
		{"subject C1", set("subject", "\u009f"), ErrAttribute},
		{"subject bidi", set("subject", "\u2067x"), ErrAttribute},
		{"subject noncharacter", set("subject", "\U0010ffff"), ErrAttribute},
		{"subject replacement character", set("subject", "\ufffd"), nil},
		{"content type control", set("datacontenttype", "a/b\x00"), ErrAttribute},
		{"extension control", set("x", "\x7f"), ErrAttribute},
		{"extension upper case", set("Abc", "x"), ErrHeaderCase},
		{"extension name empty", set("", "x"), ErrAttribute},
		{"extension name of 21", set(strings.Repeat("a", 21), "x"), ErrAttribute},
		{"extension data", set("data", "x"), ErrAttribute},
		{"extension data_base64", set("data_base64", "x"), ErrAttribute},
		{"extension specversion", set("specversion", "1.0"), ErrAttribute},
		{"extension named as core", func(e *Event) { e.SetExt([]byte("id"), []byte("x")) }, ErrAttribute},
		{"extension empty", set("x", ""), ErrAttribute},
		{"not sorted", func(e *Event) { e.Ext[0], e.Ext[1] = e.Ext[1], e.Ext[0] }, ErrAttribute},
		{"not unique", func(e *Event) { e.Ext[1].Name = e.Ext[0].Name }, ErrAttribute},
		{"too large", set("x", strings.Repeat("a", MaxAttrBytes)), ErrTooLarge},
		{"too large when encoded", set("subject", strings.Repeat("é", MaxAttrBytes/6)), ErrTooLarge},
		{"large", set("x", strings.Repeat("a", MaxAttrBytes/2)), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := full()
			tt.change(e)
			err := e.Validate()
			if !errors.Is(err, tt.err) {
				t.Fatalf("Validate = %v, want %v", err, tt.err)
			}
			if err != nil && !strings.HasPrefix(err.Error(), "cloudevent: ") {
				t.Errorf("error text %q lacks the package name", err)
			}
		})
	}
}

// TestSizeLimitIsExact compares the size that Validate computes with what
// AppendHeaders writes.
func TestSizeLimitIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := full()
		e.Subject = []byte(rapid.StringOf(rapid.SampledFrom([]rune("aZ %\"é😀~"))).Draw(t, "subject"))
		if len(e.Subject) == 0 {
			e.Subject = nil
		}
		e.SetExt([]byte("x"), []byte("v"))
		pad := MaxAttrBytes - len(AppendHeaders(nil, e)) + 1
		e.SetExt([]byte("x"), []byte(strings.Repeat("v", pad)))
		if got := len(AppendHeaders(nil, e)); got != MaxAttrBytes {
			t.Fatalf("test is wrong: %d", got)
		}
		if err := e.Validate(); err != nil {
			t.Fatalf("at the limit: %v", err)
		}
		e.SetExt([]byte("x"), []byte(strings.Repeat("v", pad+1)))
		if err := e.Validate(); !errors.Is(err, ErrTooLarge) {
			t.Fatalf("one over the limit: %v", err)
		}
	})
}

func TestParseTime(t *testing.T) {
	good := map[string]string{
		"2026-11-22T13:24:51Z":                "2026-11-22T13:24:51Z",
		"2026-11-22T13:24:51.5Z":              "2026-11-22T13:24:51.5Z",
		"2026-11-22T13:24:51.123456789Z":      "2026-11-22T13:24:51.123456789Z",
		"2026-11-22T13:24:51+05:30":           "2026-11-22T07:54:51Z",
		"2026-11-22T13:24:51.120-23:59":       "2026-11-23T13:23:51.12Z",
		"2024-02-29T00:00:00Z":                "2024-02-29T00:00:00Z",
		"0001-01-01T00:00:00Z":                "0001-01-01T00:00:00Z",
		"9999-12-31T23:59:59.999999999Z":      "9999-12-31T23:59:59.999999999Z",
		"0000-12-31T23:59:59-00:01":           "0001-01-01T00:00:59Z",
		"2026-11-22T13:24:51-00:00":           "2026-11-22T13:24:51Z",
		"9999-12-31T23:59:59.000000001+00:00": "9999-12-31T23:59:59.000000001Z",
	}
	for in, want := range good {
		got, ok := ParseTime([]byte(in))
		if !ok || got.Format(time.RFC3339Nano) != want || got.Location() != time.UTC {
			t.Errorf("ParseTime(%q) = %v, %v; want %s", in, got, ok, want)
		}
	}
	for _, in := range []string{
		"", "2026", "2026-11-22", "2026-11-22T13:24:51", "2026-11-22t13:24:51Z", "2026-11-22T13:24:51z", "2026-11-22 13:24:51Z",
		"2026-13-01T00:00:00Z", "2026-00-01T00:00:00Z", "2026-01-00T00:00:00Z", "2026-01-32T00:00:00Z", "2026-04-31T00:00:00Z",
		"2025-02-29T00:00:00Z", "1900-02-29T00:00:00Z", "2026-01-01T24:00:00Z", "2026-01-01T00:60:00Z", "2026-12-31T23:59:60Z",
		"2026-01-01T00:00:00.Z", "2026-01-01T00:00:00.1234567890Z", "2026-01-01T00:00:00,5Z", "2026-01-01T00:00:00+24:00",
		"2026-01-01T00:00:00+0000", "2026-01-01T00:00:00+00:60", "2026-01-01T00:00:00Zx", "+026-01-01T00:00:00Z", "20x6-01-01T00:00:00Z",
		"-126-01-01T00:00:00Z", "2026-1-01T000:00:00Z", "0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01", "0000-01-01T00:00:00Z",
	} {
		if got, ok := ParseTime([]byte(in)); ok {
			t.Errorf("ParseTime(%q) = %v, want refused", in, got)
		}
	}
}

// TestParseTimeModel compares with package time: what we read it reads the same,
// and it reads nothing more but offsets such as +00:60, which are left out here.
func TestParseTimeModel(t *testing.T) {
	gen := rapid.StringMatching(`[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9](\.[0-9]{1,10})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])`)
	rapid.Check(t, func(t *rapid.T) {
		in := gen.Draw(t, "time")
		var want time.Time
		err := want.UnmarshalText([]byte(in))
		got, ok := ParseTime([]byte(in))
		if ok && (err != nil || !got.Equal(want)) {
			t.Fatalf("ParseTime(%q) = %v, package time says %v, %v", in, got, want, err)
		}
		_, frac, _ := strings.Cut(in, ".")
		long := len(strings.TrimRight(frac, "Z")) > 9 // more than nanoseconds: ours refuses, or has a zone
		if year := want.UTC().Year(); err == nil && !ok && !long && year >= 1 && year <= 9999 {
			t.Fatalf("ParseTime refuses %q, package time reads %v", in, want)
		}
	})
}

package auditlog

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/signetbus/signet/signing"
)

func sample() Record {
	return Record{
		V: 1, Node: "n1", Chain: "00000000000000aa", Seq: 2, Prev: strings.Repeat("ab", 32),
		Entry: Entry{
			Time: began, Tenant: "shop", Kind: KindRefusal, Outcome: OutcomeRefused, Who: "shop/a", Remote: "192.0.2.1:1",
			Subject: "orders.created", Stream: "ORDERS", Consumer: "c", First: 1, Last: 2, Floor: 1, Count: 3, Code: 40101,
			Rule: "default-deny/publish", Ref: "x-1", Version: 4, Before: "b", After: "a", Detail: `quote " backslash \ ü <&>`,
		},
	}
}

// The documented example is what the code writes.
func TestDocumentedRecord(t *testing.T) {
	r := sample()
	line, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	spec, err := os.ReadFile("../../docs/spec/audit.md")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(spec, line) {
		t.Errorf("docs/spec/audit.md does not have the example:\n%s", line)
	}
	if !bytes.Contains(spec, []byte(HashOf(line))) {
		t.Errorf("docs/spec/audit.md does not have its hash:\n%s", HashOf(line))
	}
}

func TestDecodeIsTheInverse(t *testing.T) {
	r := sample()
	line, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := Decode(line)
	if err != nil || *back != r {
		t.Fatalf("%+v, %v", back, err)
	}
}

func TestDecodeRefusesOtherEncodings(t *testing.T) {
	r := sample()
	line, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	good := string(line)
	for name, bad := range map[string]string{
		"empty":               "",
		"space":               strings.Replace(good, `"v":1,`, `"v": 1,`, 1),
		"newline":             good + "\n",
		"other order":         strings.Replace(good, `"v":1,"node":"n1"`, `"node":"n1","v":1`, 1),
		"member twice":        strings.Replace(good, `"v":1,`, `"v":1,"v":1,`, 1),
		"other case":          strings.Replace(good, `"node"`, `"Node"`, 1),
		"unknown member":      strings.Replace(good, `"v":1,`, `"v":1,"x":1,`, 1),
		"escape":              strings.Replace(good, `"n1"`, `"\u006e1"`, 1),
		"escape for HTML":     strings.Replace(good, `<`, `\u003c`, 1),
		"zero member":         strings.Replace(good, `"first":1`, `"first":0`, 1),
		"number as float":     strings.Replace(good, `"first":1`, `"first":1.0`, 1),
		"version":             strings.Replace(good, `"v":1`, `"v":2`, 1),
		"time with zone":      strings.Replace(good, `12:00:00Z`, `12:00:00+00:00`, 1),
		"time with zeros":     strings.Replace(good, `12:00:00Z`, `12:00:00.00Z`, 1),
		"capital hash":        strings.Replace(good, "abab", "ABAB", 1),
		"chain of 15":         strings.Replace(good, "00000000000000aa", "0000000000000aa", 1),
		"seq 0":               strings.Replace(good, `"seq":2`, `"seq":0`, 1),
		"seq 1 with a prev":   strings.Replace(good, `"seq":2`, `"seq":1`, 1),
		"kind chain later on": strings.Replace(good, `"refusal"`, `"chain"`, 1),
		"not UTF-8":           strings.Replace(good, "ü", "\xff", 1),
		"too long":            strings.Replace(good, "quote", strings.Repeat("q", MaxRecordBytes), 1),
	} {
		if bad == good {
			t.Fatalf("%s: nothing was changed", name)
		}
		if _, err := Decode([]byte(bad)); !errors.Is(err, ErrRecord) {
			t.Errorf("%s: %v, want ErrRecord", name, err)
		}
	}
}

// Whatever clients put into names and subjects, a record of it can be written, and
// nothing in it steers a terminal.
func TestCleanTakesEverything(t *testing.T) {
	for _, s := range []string{
		"", "plain", strings.Repeat("x", 10_000), strings.Repeat("\"", 10_000), strings.Repeat("\xff", 1000), strings.Repeat("\u202e", 600),
		"\x1b[2J\r\n\x00", strings.Repeat("ü", 511) + "\u2028", strings.Repeat("😀", 300),
	} {
		r := sample()
		r.Entry = Entry{
			Time: time.Now(), Kind: KindRefusal, Outcome: OutcomeRefused, Tenant: s, Who: s, Remote: s, Subject: s, Stream: s, Consumer: s,
			Rule: s, Ref: s, Before: s, After: s, Detail: s,
		}
		r.Clean()
		line, err := r.Encode()
		if err != nil {
			t.Fatalf("%.20q: %v", s, err)
		}
		if back, err := Decode(line); err != nil || *back != r {
			t.Errorf("%.20q: %v", s, err)
		}
		for _, c := range string(line) {
			if c < ' ' || c == 0x7f || c >= 0x80 && c < 0xa0 || c == utf8.RuneError || c == 0x202e {
				t.Errorf("%.20q: a record holds %q", s, c)
			}
		}
	}
}

func FuzzDecode(f *testing.F) {
	r := sample()
	line, err := r.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(line)
	r.Entry = (&Pruning{Chain: r.Chain, First: 1, Last: 1, Hash: r.Prev, From: began, Until: began, Why: PrunedSize}).Entry(began, "shop")
	if line, err = r.Encode(); err != nil {
		f.Fatal(err)
	}
	f.Add(line)
	f.Add([]byte(`{"v":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Decode(b)
		if err != nil {
			return
		}
		again, err := r.Encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("decoded %q, encoded %q, %v", b, again, err)
		}
	})
}

func FuzzVerifyExport(f *testing.F) {
	tr := newTrail(f)
	tr.write("n1", 2)
	good := tr.export()
	f.Add(good)
	f.Add(good[:len(good)/2])
	for _, line := range bytes.SplitAfter(good, []byte("\n")) {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = ParseBatch(b)
		x, err := VerifyExport(bytes.NewReader(b), Trust{Root: tr.root}, nil, nil)
		if err == nil && x.Report.OK && !bytes.Equal(b, good) {
			t.Errorf("accepted %q", b)
		}
	})
}

// FuzzOpenHead: of what a node has signed as a head, only the one encoding of one is one.
func FuzzOpenHead(f *testing.F) {
	tr := newTrail(f)
	tr.write("n1", 2)
	good := tr.head("n1")
	payload, _, err := signing.VerifyStatement(good, HeadType, tr.ring)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(payload)
	f.Add(bytes.Replace(payload, []byte(`"v":1`), []byte(`"v":2`), 1))
	f.Add(bytes.Replace(payload, []byte(`"n1"`), []byte(`"n2"`), 1))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := OpenHead(b, tr.ring); err == nil {
			t.Errorf("accepted without a signature: %q", b)
		}
		doc, err := tr.keys["n1"].SignStatement(HeadType, b)
		if err != nil {
			return // too large to be signed
		}
		h, err := OpenHead(doc, tr.ring)
		if err != nil {
			return
		}
		if again, err := compact(h); err != nil || !bytes.Equal(again, b) || h.Node != "n1" {
			t.Errorf("taken for a head of %q: %q, written again %q, %v", h.Node, b, again, err)
		}
	})
}

package signing

import (
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
)

// survives is the rule in its own words.
func survives(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f {
			return false
		}
	}
	u, err := url.Parse(s)
	return err == nil && u.String() == s
}

// What is printed as it was parsed, and what is not.
var (
	goodURIs = []string{
		"/shop/checkout", "/", "/a:b@c;d=e,f$g&h+i~j.k_l-m", "/a//b", "https://example.com", "https://example.com/", "https://h//a/../b",
		"https://h:8080/a", "https://H/a", "urn:example:order", "mailto:a@example.com", "shop", "//h/a", "/a?b=c#d", "/a%7e", "http://h/a?",
		"http://[::1]/a", "http://u@h/a", "http:///a", "/a*b", "/a(b)", "a:",
	}
	badURIs = []string{
		"HTTP://Example.com/A", "http://h/#", "/a#", "/a b", "/a?b c", "http://h/\u00e9", "/?\u00e9", "urn:\u00e9", "nats://a.b.c/>", "http://h/a|b",
		"/a\x7f", "/a\nb", "http://h:x/a", "1http://h/a", "%zz", "http://h%41/a", "x://",
	}
)

// TestProducerSignsWhatSurvives: a producer signs no source and no dataschema that another
// library would change by reading it.
func TestProducerSignsWhatSurvives(t *testing.T) {
	p := testProducer(t, fillEvents)
	sign := func(source, schema string) error {
		e := unsigned(0)
		e.Source, e.DataSchema = []byte(source), []byte(schema)
		return p.Sign(e, testSubject)
	}
	for _, s := range goodURIs {
		if !survives(s) {
			t.Errorf("%q does not survive", s)
		}
		if err := errors.Join(sign(s, ""), sign("/shop", s)); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, s := range badURIs {
		for range 2 { // also after it was refused once
			if err := sign(s, ""); !errors.Is(err, ErrURI) || !strings.Contains(err.Error(), ": source ") {
				t.Errorf("source %q: %v", s, err)
			}
			if err := sign("/shop", s); !errors.Is(err, ErrURI) || !strings.Contains(err.Error(), ": dataschema ") {
				t.Errorf("dataschema %q: %v", s, err)
			}
		}
	}
}

// TestVerifierTakesWhatDoesNotSurvive: what was signed elsewhere, or before, goes on to verify.
func TestVerifierTakesWhatDoesNotSurvive(t *testing.T) {
	e := unsigned(0)
	e.Source = []byte("HTTP://Example.com/A#")
	var b ProducerBatch
	if _, err := b.Add(e, []byte(testSubject)); !errors.Is(err, ErrURI) || b.Len() != 0 {
		t.Fatalf("%v, %d in the batch", err, b.Len())
	}
	// As another implementation signs it: Add does not look at a source that was hashed before.
	if _, err := b.d.digestProducer(e, []byte(testSubject)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Add(e, []byte(testSubject)); err != nil {
		t.Fatal(err)
	}
	b.Sign(testProducer(t, fillEvents))
	e.SetExt([]byte(wire.AttrDSSE), b.AppendMaterial(nil, 0))
	if _, err := testProducerVerifier(producerRing(t)).Verify(e, testSubject); err != nil {
		t.Error(err)
	}
}

// FuzzPlainURI: what plainURI waves through is what the parser would have said.
func FuzzPlainURI(f *testing.F) {
	for _, s := range slices.Concat(goodURIs, badURIs) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if s != "" && plainURI([]byte(s)) && !survives(s) {
			t.Errorf("%q is taken for plain", s)
		}
	})
}

// The look at URIs costs nothing where they are plain, however they alternate, nor where
// a batch signs for one source.
func TestProducerAllocations(t *testing.T) {
	for _, tt := range []struct {
		name    string
		sources []string
		schema  string
	}{
		{"paths", []string{"/shop/checkout", "/shop/billing"}, ""},
		{"hosts", []string{"https://example.com/a", "https://example.org/b"}, "https://example.com/schemas/1"},
		{"of another form", []string{"urn:example:shop"}, "https://example.com/schemas/1?draft=2"},
	} {
		events := make([]*cloudevent.Event, MaxProducerBatch)
		for i := range events {
			events[i] = unsigned(i)
			events[i].Source, events[i].DataSchema = []byte(tt.sources[i%len(tt.sources)]), []byte(tt.schema)
		}
		var b ProducerBatch
		add := func() {
			b.Reset()
			for _, e := range events {
				if _, err := b.Add(e, benchSubject); err != nil {
					t.Fatal(err)
				}
			}
		}
		add()
		if got := testing.AllocsPerRun(100, add); got != 0 {
			t.Errorf("%s: Add of %d events: %v allocations, want 0", tt.name, len(events), got)
		}
	}
}

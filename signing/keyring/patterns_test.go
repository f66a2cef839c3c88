package keyring

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nkeys"
)

func producerKey(t testing.TB, sources, subjects []string) Key {
	t.Helper()
	return Key{
		ID: public(t, seed(t, nkeys.PrefixByteUser, 4)), Alg: AlgEd25519, Role: RoleProducer, Principal: "shop/checkout",
		Sources: sources, Subjects: subjects, NotBefore: day0, NotAfter: year,
	}
}

func TestPatternsRoundTrip(t *testing.T) {
	sources := []string{"/shop/checkout", "/partner/*", "/partner/*", "*"}
	k := producerKey(t, sources, []string{"orders.>", "orders.*.paid"})
	r, err := New(1, day0, year, []Key{k, brokerKey(t, 1)})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"/shop/checkout", "/partner/*", "/partner/*", "*"}; !slices.Equal(sources, want) {
		t.Errorf("New changed the caller's list: %q", sources)
	}
	if want := `"principal":"shop/checkout","sources":["*","/partner/*","/shop/checkout"],"subjects":["orders.*.paid","orders.>"],"notBefore"`; !strings.Contains(string(r.payload()), want) {
		t.Errorf("got %s, want it to contain %s", r.payload(), want)
	}
	rootSeed := seed(t, nkeys.PrefixByteOperator, 9)
	doc, err := r.Sign(rootSeed)
	if err != nil {
		t.Fatal(err)
	}
	back, err := Parse(doc, public(t, rootSeed), day1)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(back.Keys(), r.Keys()) {
		t.Errorf("got %+v, want %+v", back.Keys(), r.Keys())
	}
	back.Keys()[1].Sources[0] = "changed"
	if got, _ := back.ByID(k.ID); got.Sources[0] != "*" {
		t.Error("a change of what Keys returned changed the ring")
	}
}

// A document of before the two members existed keeps its bytes.
func TestDocumentWithoutPatternsKeepsItsBytes(t *testing.T) {
	for _, k := range testRing(t).Keys() {
		r, err := New(7, day0, year, []Key{k})
		if err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf(`{"version":7,"issued":"2026-11-22T00:00:00Z","expires":"2027-11-22T00:00:00Z","keys":[`+
			`{"id":"%s","alg":"ed25519","role":"%s","principal":"%s","notBefore":"2026-11-22T00:00:00Z","notAfter":"2027-11-22T00:00:00Z"`,
			k.ID, k.Role, k.Principal)
		if !k.RevokedAt.IsZero() {
			want += `,"revokedAt":"2026-11-23T00:00:00Z"`
		}
		if want += "}]}"; string(r.payload()) != want {
			t.Errorf("got  %s\nwant %s", r.payload(), want)
		}
	}
}

func TestPatternsRefused(t *testing.T) {
	many := make([]string, MaxPatterns+1)
	for i := range many {
		many[i] = fmt.Sprint("a", i)
	}
	for _, tc := range []struct {
		name              string
		sources, subjects []string
	}{
		{"empty source", []string{""}, nil},
		{"long source", []string{strings.Repeat("a", MaxSourceBytes+1)}, nil},
		{"star inside a source", []string{"/a*/b"}, nil},
		{"two stars", []string{"/a**"}, nil},
		{"space in a source", []string{"/a b"}, nil},
		{"quote in a source", []string{`/a"b`}, nil},
		{"backslash in a source", []string{`/a\b`}, nil},
		{"source outside ASCII", []string{"/é"}, nil},
		{"too many sources", many, nil},
		{"empty subject", nil, []string{""}},
		{"empty token", nil, []string{"orders..paid"}},
		{"misplaced wildcard", nil, []string{"orders.>.paid"}},
		{"system subject", nil, []string{"$JS.API.>"}},
		{"too many subjects", nil, many},
	} {
		if _, err := New(1, day0, year, []Key{producerKey(t, tc.sources, tc.subjects)}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", tc.name, err)
		}
	}
	for _, change := range []func(k *Key){
		func(k *Key) { k.Sources = []string{"/a"} }, func(k *Key) { k.Subjects = []string{"a.b"} },
	} {
		k := brokerKey(t, 1)
		change(&k)
		if _, err := New(1, day0, year, []Key{k}); !errors.Is(err, ErrInvalid) {
			t.Errorf("broker key with %v %v: got %v, want ErrInvalid", k.Sources, k.Subjects, err)
		}
	}
}

func TestParseRefusesOtherSpellingsOfPatterns(t *testing.T) {
	r, err := New(1, day0, year, []Key{producerKey(t, []string{"/a", "/b"}, []string{"a.b"})})
	if err != nil {
		t.Fatal(err)
	}
	good := string(r.payload())
	for _, tc := range []struct{ name, old, with string }{
		{"order", `["/a","/b"]`, `["/b","/a"]`},
		{"repeated", `["/a","/b"]`, `["/a","/b","/b"]`},
		{"empty list", `"subjects":["a.b"]`, `"subjects":[]`},
		{"null", `"subjects":["a.b"]`, `"subjects":null`},
		{"one string", `"subjects":["a.b"]`, `"subjects":"a.b"`},
		{"white space", `["/a","/b"]`, `["/a", "/b"]`},
		{"escape", `"/a"`, `"\/a"`},
		{"members swapped", `"sources":["/a","/b"],"subjects":["a.b"]`, `"subjects":["a.b"],"sources":["/a","/b"]`},
		{"twice", `"subjects":["a.b"]`, `"subjects":["a.b"],"subjects":["a.b"]`},
	} {
		if !strings.Contains(good, tc.old) {
			t.Fatalf("payload has no %q", tc.old)
		}
		if _, err := parsePayload([]byte(strings.Replace(good, tc.old, tc.with, 1))); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", tc.name, err)
		}
	}
	if back, err := parsePayload([]byte(good)); err != nil || !bytes.Equal(back.payload(), r.payload()) {
		t.Fatalf("the base case must pass: %v", err)
	}
}

func TestCovers(t *testing.T) {
	open := producerKey(t, nil, nil)
	k := producerKey(t, []string{"/shop/checkout", "/partner/*"}, []string{"orders.*.paid", "telemetry.>"})
	for _, tc := range []struct {
		name string
		got  bool
		want bool
	}{
		{"no sources", open.CoversSource("/any"), true},
		{"no subjects", open.CoversSubject("any.thing"), true},
		{"exact source", k.CoversSource("/shop/checkout"), true},
		{"exact is no prefix", k.CoversSource("/shop/checkout/2"), false},
		{"prefix", k.CoversSource("/partner/acme"), true},
		{"prefix itself", k.CoversSource("/partner/"), true},
		{"other source", k.CoversSource("/partne"), false},
		{"star is no source", k.CoversSource("*"), false},
		{"wildcard", k.CoversSubject("orders.7.paid"), true},
		{"other verb", k.CoversSubject("orders.7.created"), false},
		{"longer", k.CoversSubject("orders.7.paid.again"), false},
		{"rest", k.CoversSubject("telemetry.a.b"), true},
		{"rest needs a token", k.CoversSubject("telemetry"), false},
	} {
		if tc.got != tc.want {
			t.Errorf("%s: got %v, want %v", tc.name, tc.got, tc.want)
		}
	}
}

func TestSameAs(t *testing.T) {
	ring, err := New(1, day0, year, []Key{producerKey(t, nil, nil)})
	if err != nil {
		t.Fatal(err)
	}
	k := ring.Keys()[0]
	for id, want := range map[string]bool{
		k.ID: true,
		public(t, seed(t, nkeys.PrefixByteAccount, 4)): true, // the same raw key
		public(t, seed(t, nkeys.PrefixByteUser, 5)):    false,
		"": false, "U": false, k.ID + "A": false,
	} {
		if got := k.SameAs(id); got != want {
			t.Errorf("SameAs(%q): got %v, want %v", id, got, want)
		}
	}
}

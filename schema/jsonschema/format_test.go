package jsonschema

import (
	"strings"
	"testing"
)

// A few cases of each format; the official suite (suite_test.go) has the rest.
func TestFormats(t *testing.T) {
	long := strings.Repeat("a", 63)
	cases := map[string]struct{ good, bad []string }{
		"date-time": {
			[]string{"2026-11-22T13:45:00Z", "2026-11-22t13:45:00.123+05:30", "1998-12-31T23:59:60Z", "1998-12-31T15:59:60.123-08:00", "2024-02-29T00:00:00z"},
			[]string{"", "2026-11-22 13:45:00Z", "2018-04-25 20:42:10", "2026-11-22T13:45:00", "2026-02-29T00:00:00Z", "1998-12-31T23:58:60Z", "2026-11-22T24:00:00Z", "2026-11-22T13:45:00+24:00", "2026-11-22T13:45:00.Z", "2026-11-22T13:45Z", "02026-11-22T13:45:00Z", "2026-11-22T13:45:00Z "},
		},
		"date": {[]string{"2026-11-22", "2000-02-29"}, []string{"2026-1-2", "1900-02-29", "2026-13-01", "2026-04-31", "2026-00-10", "２026-11-22"}},
		"time": {[]string{"13:45:00Z", "23:59:60+00:00", "01:29:60+01:30"}, []string{"13:45:00", "24:00:00Z", "13:60:00Z", "12:00:60Z", "13:45:00z0", "13:45:00+0100"}},
		"duration": {
			[]string{"P4DT12H30M5S", "P1Y2M3DT4H5M6S", "PT0S", "P2W", "P1M2D"},
			[]string{"", "P", "PT", "P1YT", "PT1D", "P2D1Y", "P1Y2W", "P1Y2D", "PT1H2S", "PT0.5S", "-P1D", "P1", "P1D "},
		},
		"email": {
			[]string{"a@b", "joe.bloggs@example.com", "te~st@example.com", `"joe bloggs"@example.com`, "a@[127.0.0.1]", "a@[IPv6:::1]"},
			[]string{"", "2962", "@b", "a@", ".a@b", "a.@b", "a..b@c", "a b@c", "a@b c", "a@[127.0.0.300]", "é@b", "a@b_c", "a@b, c@d", strings.Repeat("a", 65) + "@b"},
		},
		"hostname": {
			[]string{"www.example.com", "1host", "a--b.com", long + ".com", "xn--4gbwdl.xn--wgbh1c", "xn--ll-0ea"},
			[]string{"", ".", "a.", ".a", "-a", "a-", "a_b", "a..b", long + "a", "é.com", "xn--X", "xn--al-0ea", strings.Repeat(long+".", 4) + "a"},
		},
		"ipv4": {[]string{"127.0.0.1", "255.255.255.255"}, []string{"", "1.2.3", "1.2.3.4.5", "256.1.1.1", "01.2.3.4", "1.2.3.4 ", "0x7f.0.0.1", "1.2.3.", "١.2.3.4"}},
		"ipv6": {[]string{"::", "::1", "2001:db8::1", "::ffff:1.2.3.4", "1:2:3:4:5:6:7:8"}, []string{"", ":", "1.2.3.4", "12345::", "1::2::3", "::1%eth0", "1:2:3:4:5:6:7:8:9", "::ffff:1.2.3.256", " ::1"}},
		"uri": {
			[]string{"http://a", "https://api.github.com/users/x?y=1#z", "urn:x:y", "mailto:a@b.c", "ldap://[2001:db8::7]/c=GB?a?b", "http://u:p@h:80/", "tel:+1-816", "http://a/%20", "a:"},
			[]string{"", "/a", "//a/b", "a", "http://a b", "http://[::1", "http://a/%2", "http://a/{x}", ":a", "1a:b", "http://a:8x/", `\\a\b`, "http://a/#b#c", "http://a@b@c/", "http://é/", "http://[1.2.3.4]/", "bar,baz:x y"},
		},
		"uri-reference": {[]string{"", "/a", "//a/b", "a", "#f", "?q", "../a", "a/b:c", "http://a"}, []string{`\a`, "a b", "#a#b", "%zz", "é", ":a"}},
		"iri":           {[]string{"http://é.com/ü?ö#ß", "http://a"}, []string{"/é", "http://é b", "http://[é]/", "http://a/\ufdd0"}},
		"iri-reference": {[]string{"/é", "é", "#ö"}, []string{`\é`, "é b"}},
		"uri-template": {
			[]string{"", "https://api.github.com/users/x/gists{/gist_id}", "https://a/{?q*,p:12}", "{+base}/x{#f}", "a{x.y}", "{%41}", "{&a,b}", "{=a}", "a'b", "é"},
			[]string{"{", "}", "a}b{", "{}", "{a", "{a}}", "{a b}", "{a:0}", "{a:10000}", "{a:x}", "{a*:3}", "{{a}}", "{a,}", "{.}", "a b", "a<b", "%4", "{a..b}", `a\b`, "{$a}"},
		},
		"uuid":                  {[]string{"0190b6c2-7a0e-7c3e-9a58-1f0d2c3b4a59", "00000000-0000-0000-0000-000000000000", "2EB8AA08-AA98-11EA-B4AA-73B441D16380"}, []string{"", "0190b6c27a0e7c3e9a581f0d2c3b4a59", "0190b6c2-7a0e-7c3e-9a58-1f0d2c3b4a5", "0190b6c2-7a0e-7c3e-9a58-1f0d2c3b4a5g", "{0190b6c2-7a0e-7c3e-9a58-1f0d2c3b4a59}", "0190b6c2-7a0e-7c3e-9a581-f0d2c3b4a59"}},
		"json-pointer":          {[]string{"", "/", "/a/b~0~1", "/é"}, []string{"a", "/~", "/~2", "#/a", "/a~"}},
		"relative-json-pointer": {[]string{"0", "1/a", "0#", "2/0/b", "0+1/a", "0-1#"}, []string{"", "/a", "-1/a", "01/a", "0##", "0+0", "a"}},
		"regex":                 {[]string{"", "^a+$", `\d{3}`, "(?:a|b)", "(?<n>a)", `\(?i`, "[(?i]"}, []string{"(?i)a", "(?P<n>a)", `\Q[\E(?i)[a-\x{10FFFF}]`, `\a`, strings.Repeat("a", 513), "(", "a**", "(?=a)", `(a)\1`, "[", "(x{999}){999}"}},
	}
	for _, name := range Formats() {
		c, ok := cases[name]
		if !ok {
			t.Errorf("%s: no cases", name)
		}
		for _, s := range c.good {
			if !formatChecks[name]([]byte(s)) {
				t.Errorf("%s: %q refused", name, s)
			}
		}
		for _, s := range c.bad {
			if formatChecks[name]([]byte(s)) {
				t.Errorf("%s: %q accepted", name, s)
			}
		}
	}
}

// FuzzFormats: no text makes a check panic.
func FuzzFormats(f *testing.F) {
	for _, s := range []string{"xn--a", "a@[IPv6:::1]", "http://[v1.a]:1/%41?#", "{+a*,b:3}", "P1DT1H", "1998-12-31T23:59:60Z", "xn--99999999", "0-1/~0", `"\"@a`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, check := range formatChecks {
			check(b)
		}
	})
}

// TestSimplePatterns: the matcher of simple patterns agrees with RE2.
func TestSimplePatterns(t *testing.T) {
	texts := []string{"", "a", "ab", "abc", "AB", "ABC-12345", "ABC-1234", "aa-bb", "a-", "-", "a1", "1a", "123", "a\n", "é", "aéb", "abab", "x9z"}
	simple := 0
	for _, src := range []string{
		"^[A-Z]{3}-[0-9]{5}$", "^[a-z]+$", "^[a-z]*$", "^a?b$", "^a*b*$", "^a*a$", "^[a-z]+[0-9]?$", "^[a-z]{1,2}-?[a-z]*$", "^(ab)+$",
		"^(?i)ab$", "^ab", "ab$", "^.$", "^é$", `^\w+$`, "^[^a]$", "^a{2}$", "^a+?b$", "^$", "^a|b$", "(?m)^a$", `^x\d+z$`, `\Aab\z`,
	} {
		p, err := compilePattern(src, 512, 10000)
		if err != nil {
			t.Fatal(err)
		}
		if p.simple != nil {
			simple++
		}
		for _, s := range texts {
			if got, want := p.match([]byte(s)), p.re.MatchString(s); got != want {
				t.Errorf("%s on %q: %v, RE2 says %v", src, s, got, want)
			}
		}
	}
	if simple < 8 {
		t.Errorf("%d patterns are simple", simple)
	}
}

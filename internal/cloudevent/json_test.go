package cloudevent

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// event wraps members into an event with the required attributes.
func event(members string) string {
	s := `{"specversion":"1.0","id":"1","source":"/s","type":"t"`
	if members != "" {
		s += "," + members
	}
	return s + "}"
}

type jsonCase struct {
	name string
	in   string
	err  error // nil: accepted
}

func runJSON(t *testing.T, tests []jsonCase) {
	t.Helper()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var e Event
			err := e.FromJSON([]byte(tt.in), nil)
			if !errors.Is(err, tt.err) {
				t.Fatalf("FromJSON(%.200s) = %v, want %v", tt.in, err, tt.err)
			}
			if err == nil {
				return
			}
			var j *JSONError
			if !errors.As(err, &j) || !errors.Is(err, ErrJSON) || j.Offset < 0 || j.Offset > len(tt.in) {
				t.Errorf("error %#v is no *JSONError with an offset into the text", err)
			}
			if !strings.HasPrefix(err.Error(), "cloudevent: ") {
				t.Errorf("error text %q lacks the package name", err)
			}
		})
	}
}

func TestRow24DuplicateKeys(t *testing.T) {
	runJSON(t, []jsonCase{
		{"core", event(`"id":"2"`), ErrDuplicate},
		{"core, same value", event(`"id":"1"`), ErrDuplicate},
		{"specversion", event(`"specversion":"1.0"`), ErrDuplicate},
		{"extension", event(`"a":"1","b":"1","a":"1"`), ErrDuplicate},
		{"data", event(`"data":1,"data":1`), ErrDuplicate},
		{"data_base64", event(`"data_base64":"","data_base64":""`), ErrDuplicate},
		{"null first", event(`"subject":null,"subject":"x"`), ErrDuplicate},
		{"null last", event(`"subject":"x","subject":null`), ErrDuplicate},
		{"extension null first", event(`"a":null,"a":"x"`), ErrDuplicate},
		{"extension null twice", event(`"a":null,"a":null`), ErrDuplicate},
		{"extension null last", event(`"a":"x","a":null`), ErrDuplicate},
		{"case twin", event(`"ID":"2"`), ErrAttribute},
		{"case twin of an extension", event(`"abc":"1","aBc":"2"`), ErrAttribute},
		{"case twin of data", event(`"data":1,"Data":2`), ErrAttribute},
		{"escaped twin", event(`"\u0069d":"2"`), ErrAttribute},
		{"Kelvin sign folds to k", event("\"partition\u212aey\":\"2\""), ErrAttribute},
		{"in opaque data", event(`"data":{"a":1,"a":2}`), nil},
	})
}

func TestRow25DataAndDataBase64(t *testing.T) {
	runJSON(t, []jsonCase{
		{"both", event(`"data":1,"data_base64":"AA=="`), ErrDuplicate},
		{"both, other order", event(`"data_base64":"AA==","data":1`), ErrDuplicate},
		{"both, base64 empty", event(`"data_base64":"","data":1`), ErrDuplicate},
		{"both, data null", event(`"data":null,"data_base64":"AA=="`), ErrDuplicate},
		{"base64 alone", event(`"data_base64":"AA=="`), nil},
		{"base64 with an escaped slash", event(`"data_base64":"\/w=="`), nil},
		{"base64 no string", event(`"data_base64":null`), ErrJSON},
		{"base64 without padding", event(`"data_base64":"AA"`), ErrJSON},
		{"base64 of the URL alphabet", event(`"data_base64":"_w=="`), ErrJSON},
		{"base64 with bits behind the end", event(`"data_base64":"AB=="`), ErrJSON},
		{"base64 with a line end", event(`"data_base64":"AA=\n="`), ErrJSON},
		{"base64 with a space", event(`"data_base64":"AA= ="`), ErrJSON},
	})
}

func TestRow26ControlCharacters(t *testing.T) {
	runJSON(t, []jsonCase{
		{"raw NUL in a string", event("\"a\":\"\x00\""), ErrJSON},
		{"raw LF in a string", event("\"a\":\"\n\""), ErrJSON},
		{"raw NUL between tokens", event("\"a\":\x00\"b\""), ErrJSON},
		{"not UTF-8", event("\"a\":\"\xff\""), ErrJSON},
		{"overlong", event("\"a\":\"\xc0\x80\""), ErrJSON},
		{"UTF-8 of a surrogate", event("\"a\":\"\xed\xa0\x80\""), ErrJSON},
		{"not UTF-8 in data", event("\"data\":\"\xff\""), ErrJSON},
		{"lone high surrogate", event(`"a":"\ud800"`), ErrJSON},
		{"lone high surrogate and text", event(`"a":"\ud800abcdef"`), ErrJSON},
		{"lone low surrogate", event(`"a":"\udc00"`), ErrJSON},
		{"two high surrogates", event(`"a":"\ud800\ud800"`), ErrJSON},
		{"lone surrogate in data", event(`"data":["\ud800"]`), ErrJSON},
		{"pair", event(`"a":"\ud83d\ude00"`), nil},
	})
	// What JSON can carry and an attribute must not is refused by Validate.
	for _, id := range []string{
		`\u0000`, `\u001b[2J`, `a\r\nb`, `\u007f`, `\u0085`, `\u202e`, `\u2066`, `\u200f`, `\u061c`,
		"\u202e", "\u0085", `\ufffe`, `\ufdd0`, `\ud83f\udfff`,
	} {
		var e Event
		if err := e.FromJSON([]byte(`{"specversion":"1.0","source":"/s","type":"t","id":"`+id+`"}`), nil); err != nil {
			t.Errorf("id %q: FromJSON: %v", id, err)
			continue
		}
		if err := e.Validate(); !errors.Is(err, ErrAttribute) {
			t.Errorf("id %q: Validate = %v, want ErrAttribute", id, err)
		}
	}
}

func TestRow27Depth(t *testing.T) {
	nest := func(n int, open, inner, end string) string {
		return event(`"data":` + strings.Repeat(open, n) + inner + strings.Repeat(end, n))
	}
	var tests []jsonCase
	for _, n := range []int{MaxJSONDepth - 2, MaxJSONDepth - 1, MaxJSONDepth, 64, 1_000_000} {
		var want error
		if n+1 > MaxJSONDepth { // the event's object is one level
			want = ErrJSON
		}
		tests = append(
			tests,
			jsonCase{fmt.Sprintf("arrays %d", n), nest(n, "[", "", "]"), want},
			jsonCase{fmt.Sprintf("objects %d", n), nest(n, `{"a":`, "1", "}"), want},
		)
	}
	tests = append(tests, jsonCase{"open 1e6", event(`"data":` + strings.Repeat("[", 1_000_000)), ErrJSON})
	runJSON(t, tests)
}

func TestRow28Numbers(t *testing.T) {
	runJSON(t, []jsonCase{
		{"integer", event(`"n":42`), nil},
		{"zero", event(`"n":0`), nil},
		{"least", event(`"n":-2147483648`), nil},
		{"greatest", event(`"n":2147483647`), nil},
		{"below", event(`"n":-2147483649`), ErrAttribute},
		{"above", event(`"n":2147483648`), ErrAttribute},
		{"long", event(`"n":99999999999999999999`), ErrAttribute},
		{"minus zero", event(`"n":-0`), ErrAttribute},
		{"fraction", event(`"n":1.0`), ErrAttribute},
		{"exponent", event(`"n":1e2`), ErrAttribute},
		{"leading zero", event(`"n":01`), ErrJSON},
		{"plus", event(`"n":+1`), ErrJSON},
		{"NaN", event(`"data":NaN`), ErrJSON},
		{"minus alone", event(`"data":-`), ErrJSON},
		{"point at the end", event(`"data":1.`), ErrJSON},
		{"no exponent", event(`"data":1e+`), ErrJSON},
		{"beyond float64 in data", event(`"data":[9007199254740993,1e400]`), nil},
	})
	var e Event
	in := `[9007199254740993, 1e400]`
	if err := e.FromJSON([]byte(event(`"data":`+in)), nil); err != nil || string(e.Data) != in {
		t.Errorf("data = %q, %v; want %q", e.Data, err, in)
	}
}

func TestRow29ExtensionCount(t *testing.T) {
	extensions := func(n int, value string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `"x%d":%s,`, i, value)
		}
		return event(strings.TrimSuffix(b.String(), ","))
	}
	runJSON(t, []jsonCase{
		{"64", extensions(64, `"v"`), nil},
		{"65", extensions(65, `"v"`), ErrTooMany},
		{"65 null", extensions(65, "null"), ErrTooMany},
		{"10000", extensions(10_000, `"v"`), ErrTooMany},
	})
	e := full()
	for i := range MaxExtensions {
		e.SetExt(fmt.Appendf(nil, "x%d", i), []byte("v"))
	}
	if err := e.Validate(); !errors.Is(err, ErrTooMany) {
		t.Errorf("Validate with %d extensions = %v, want ErrTooMany", len(e.Ext), err)
	}
	many := map[string][]string{}
	for i := range 2 * MaxExtensions {
		many[fmt.Sprintf("ce-x%d", i)] = []string{"v"}
	}
	if err := new(Event).FromHeaderMap(many, nil); !errors.Is(err, ErrTooMany) {
		t.Errorf("FromHeaderMap = %v, want ErrTooMany", err)
	}
}

func TestJSONForm(t *testing.T) {
	runJSON(t, []jsonCase{
		{"least", `{"specversion":"1.0"}`, nil},
		{"white space", " \t\r\n{ \"specversion\" : \"1.0\" , \"id\" : \"1\" } \n", nil},
		{"empty text", ``, ErrJSON},
		{"byte order mark", "\ufeff" + event(""), ErrJSON},
		{"array", `[` + event("") + `]`, ErrJSON},
		{"string", `"x"`, ErrJSON},
		{"two events", event("") + event(""), ErrJSON},
		{"bytes behind", event("") + "x", ErrJSON},
		{"NUL behind", event("") + "\x00", ErrJSON},
		{"comma at the end", event(`"a":"b",`), ErrJSON},
		{"comma first", `{,"specversion":"1.0"}`, ErrJSON},
		{"no comma", `{"specversion":"1.0" "id":"1"}`, ErrJSON},
		{"no colon", `{"specversion" "1.0"}`, ErrJSON},
		{"name not a string", `{1:"1.0"}`, ErrJSON},
		{"single quotes", `{'specversion':'1.0'}`, ErrJSON},
		{"comment", event("") + "// x", ErrJSON},
		{"open", `{"specversion":"1.0"`, ErrJSON},
		{"no member", `{}`, ErrVersion},
		{"no specversion", `{"id":"1"}`, ErrVersion},
		{"specversion 0.3", `{"specversion":"0.3"}`, ErrVersion},
		{"specversion number", `{"specversion":1.0}`, ErrJSON},
		{"specversion null", `{"specversion":null}`, ErrJSON},
		{"core number", `{"specversion":"1.0","id":5}`, ErrJSON},
		{"core empty", `{"specversion":"1.0","id":""}`, ErrAttribute},
		{"extension empty", event(`"a":""`), ErrAttribute},
		{"extension object", event(`"a":{}`), ErrAttribute},
		{"extension array", event(`"a":[]`), ErrAttribute},
		{"extension bad literal", event(`"a":nul`), ErrJSON},
		{"name empty", event(`"":"x"`), ErrAttribute},
		{"name of 21", event(`"aaaaabbbbbcccccddddde":"x"`), ErrAttribute},
		{"name with dash", event(`"a-b":"x"`), ErrAttribute},
		{"bad escape", event(`"a":"\x"`), ErrJSON},
		{"short escape", event(`"a":"\u12"`), ErrJSON},
		{"escape at the end", `{"specversion":"1.0","a":"\`, ErrJSON},
		{"open array in data", event(`"data":[1,`), ErrJSON},
		{"wrong bracket in data", event(`"data":[1}`), ErrJSON},
		{"object without value in data", event(`"data":{"a"}`), ErrJSON},
		{"data is no value", event(`"data":`), ErrJSON},
	})
	for n := range len(event(`"data":[1,{"a":"\u00e9"}],"b":true`)) {
		in := event(`"data":[1,{"a":"\u00e9"}],"b":true`)[:n]
		if err := new(Event).FromJSON([]byte(in), nil); !errors.Is(err, ErrJSON) {
			t.Errorf("cut at %d: %v, want ErrJSON", n, err)
		}
	}
}

func TestJSONValues(t *testing.T) {
	tests := []struct {
		name, members, attr, want string
	}{
		{"escapes", `"a":"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00x"`, "a", "\"\\/\b\f\n\r\té😀x"},
		{"true", `"a":true`, "a", "true"},
		{"false", `"a":false`, "a", "false"},
		{"integer", `"a":-7`, "a", "-7"},
		{"null is absent", `"a":null,"b":"c"`, "a", ""},
		{"null core is absent", `"subject":null`, "subject", ""},
		{"after an escape", `"a":"\u0041\u0042","b":"\u0043"`, "b", "C"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var e Event
			var s Scratch
			if err := e.FromJSON([]byte(event(tt.members)), &s); err != nil {
				t.Fatal(err)
			}
			if got := string(e.Get(tt.attr)); got != tt.want {
				t.Errorf("%s = %q, want %q", tt.attr, got, tt.want)
			}
		})
	}
}

func TestJSONData(t *testing.T) {
	blob := []byte{0, 1, 0xff, '\n'}
	b64 := base64.StdEncoding.EncodeToString(blob)
	tests := []struct {
		name, members, want string
		err                 error
	}{
		{"absent", ``, "", nil},
		{"exact bytes", `"data": { "a" : [ 1 , "\u00e9\/" ] } `, `{ "a" : [ 1 , "\u00e9\/" ] }`, nil},
		{"string of JSON", `"data":"x"`, `"x"`, nil},
		{"null of JSON", `"data":null`, `null`, nil},
		{"+json", `"datacontenttype":"application/vnd.x+JSON; a=b","data":"x"`, `"x"`, nil},
		{"text", `"datacontenttype":"text/plain","data":"x\n<"`, "x\n<", nil},
		{"text, type last", `"data":"x\n","datacontenttype":"text/plain"`, "x\n", nil},
		{"text without escapes", `"data":"xyz","datacontenttype":"text/plain"`, "xyz", nil},
		{"text, no string", `"datacontenttype":"text/plain","data":1`, "", ErrJSON},
		{"text, null", `"datacontenttype":"text/plain","data":null`, "", ErrJSON},
		{"base64", `"data_base64":"` + b64 + `"`, string(blob), nil},
		{"base64 of JSON", `"datacontenttype":"application/json","data_base64":"MQ=="`, "1", nil},
		{"base64 empty", `"data_base64":""`, "", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var e Event
			var s Scratch
			err := e.FromJSON([]byte(event(tt.members)), &s)
			if !errors.Is(err, tt.err) {
				t.Fatalf("error = %v, want %v", err, tt.err)
			}
			if err == nil && string(e.Data) != tt.want {
				t.Errorf("data = %q, want %q", e.Data, tt.want)
			}
		})
	}
}

// TestImpliedContentType: a data member is JSON unless the event says otherwise;
// data_base64 is not.
func TestImpliedContentType(t *testing.T) {
	for members, want := range map[string]string{
		`"data":1`: "application/json", `"data":null,"datacontenttype":null`: "application/json",
		`"data":1,"datacontenttype":"text/json"`: "text/json", `"data_base64":"MQ=="`: "", `"a":"b"`: "",
	} {
		var e Event
		if err := e.FromJSON([]byte(event(members)), nil); err != nil || string(e.ContentType) != want {
			t.Errorf("%s: datacontenttype = %q, %v; want %q", members, e.ContentType, err, want)
		}
	}
}

func TestJSONContent(t *testing.T) {
	for in, want := range map[string]bool{
		"": true, "application/json": true, "Application/JSON; charset=utf-8": true, "text/json": true,
		"application/problem+json": true, "a/+json": false, "application/jsonp": false, "json": false,
		"text/plain": false, "text/plain; x=/json": false, ";": false, "application/json ;a": true,
	} {
		if got := JSONContent([]byte(in)); got != want {
			t.Errorf("JSONContent(%q) = %v, want %v", in, got, want)
		}
	}
}

func TestAppendJSON(t *testing.T) {
	e := full()
	e.SetExt([]byte("zz"), []byte("\"\\\n\x1f\x7f<é\xff"))
	e.SetExt([]byte("empty"), nil)
	want := `{"specversion":"1.0","id":"a1","source":"/shop/checkout","type":"order.created","datacontenttype":"application/json",` +
		`"dataschema":"https://example.com/s/1","subject":"order 17","time":"2026-11-22T13:24:51Z","authid":"shop/checkout",` +
		`"partitionkey":"straße","sequence":"17","zz":"\"\\\u000a\u001f\u007f<é` + "\ufffd" + `","data_base64":"eyJuIjogMX0="}`
	if got := string(AppendJSON([]byte("x"), e)); got != "x"+want {
		t.Errorf("AppendJSON =\n%s\nwant\n%s", got, want)
	}
}

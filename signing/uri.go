package signing

import (
	"fmt"
	"net/url"

	"github.com/signetbus/signet/internal/cloudevent"
)

// checkURIs refuses an event whose source or dataschema is not the text that is left of it
// when a library parses it as a URI and prints it again, as those of CloudEvents do: the
// event would no longer verify where such a library passes it on. Only who signs as a
// producer asks: what is signed already verifies as it stands.
//
// A text that b has signed before passes without a look, so this seldom allocates.
func (b *ProducerBatch) checkURIs(e *cloudevent.Event) error {
	for _, a := range [...]struct {
		name  string
		value []byte
		last  *memo
	}{{"source", e.Source, &b.d.source}, {"dataschema", e.DataSchema, &b.d.schema}} {
		if len(a.value) == 0 || a.last.holds(a.value) || plainURI(a.value) {
			continue
		}
		if printed, ok := printedURI(a.value); !ok {
			return fmt.Errorf("%w: %s %q is not a URI-reference in ASCII", ErrURI, a.name, a.value)
		} else if printed != string(a.value) {
			return fmt.Errorf("%w: %s %q becomes %q", ErrURI, a.name, a.value, printed)
		}
	}
	return nil
}

// printedURI is what is printed of v when it was parsed.
func printedURI(v []byte) (string, bool) {
	for _, c := range v {
		if c <= ' ' || c >= 0x7f {
			return "", false
		}
	}
	u, err := url.Parse(string(v))
	if err != nil {
		return "", false
	}
	return u.String(), true
}

// plainURI tells what is surely printed as it was parsed: a path from the root, or scheme, host
// and path, of characters that no printer changes. false: printedURI has to say.
func plainURI(v []byte) bool {
	if v[0] != '/' {
		if v = authority(v); v == nil {
			return false
		}
	} else if len(v) > 1 && v[1] == '/' {
		return false // a host follows
	}
	for i, c := range v {
		if !pathByte[c] || i == 0 && c != '/' {
			return false
		}
	}
	return true
}

// authority returns what follows a lower-case scheme and a host; nil: it is not so, or has more.
func authority(v []byte) []byte {
	i := 0
	for i < len(v) && v[i] >= 'a' && v[i] <= 'z' {
		i++
	}
	if i == 0 || len(v) < i+3 || string(v[i:i+3]) != "://" {
		return nil
	}
	first := i + 3
	for i = first; i < len(v) && v[i] != '/'; i++ {
		if c := v[i]; !pathByte[c] || c == ':' || c == '@' {
			return nil
		}
	}
	if i == first {
		return nil
	}
	return v[i:]
}

// pathByte are the characters of a path that are printed as they are.
var pathByte = func() (t [256]bool) {
	for _, c := range []byte("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~/$&+,:;=@") {
		t[c] = true
	}
	return t
}()

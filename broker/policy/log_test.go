package policy

import (
	"strings"
	"testing"
)

// require: logged wants log: true of every stream that the subject is in.
func TestRequireLoggedWantsLog(t *testing.T) {
	text := `tenant: shop
streams: [{name: A, subjects: [a.>], maxBytes: 1MiB, log: LOG}]
subjects: [{match: a.x, require: logged}]
`
	load := func(log string) (*Set, error) {
		b, err := Parse("p.yaml", []byte(strings.Replace(text, "LOG", log, 1)))
		if err != nil {
			return nil, err
		}
		return Compile(b)
	}
	set, err := load("true")
	if err != nil || !set.Tenant("shop").Stream("A").Log {
		t.Errorf("with log: true: %v", err)
	}
	if _, err := load("false"); err == nil || !strings.Contains(err.Error(), "has no log: true") {
		t.Errorf("with log: false: %v", err)
	}
}

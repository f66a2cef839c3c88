package gate

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
)

func encodeSig(sig []byte) string { return base64.RawURLEncoding.EncodeToString(sig) }

func parseInfo(t testing.TB, line string) serverInfo {
	t.Helper()
	text, ok := strings.CutPrefix(line, "INFO ")
	if !ok {
		t.Fatalf("got %q, want INFO", line)
	}
	var i serverInfo
	check(t, json.Unmarshal([]byte(text), &i))
	return i
}

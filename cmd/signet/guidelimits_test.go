package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestGuideLimits: whatever the guide about limits shows is what its script runs, word for
// word: the commands, the limits of the policy, and the answers.
func TestGuideLimits(t *testing.T) {
	guide, err := os.ReadFile("../../docs/guides/limits.md")
	if err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile("testdata/script/guide_limits.txtar")
	if err != nil {
		t.Fatal(err)
	}
	commands := regexp.MustCompile("(?m)^    (signet .*)$").FindAllStringSubmatch(string(guide), -1)
	for _, c := range commands {
		if !regexp.MustCompile(`(?m)^rc \d ` + regexp.QuoteMeta(c[1]) + `$`).Match(script) {
			t.Errorf("the script does not run %q", c[1])
		}
	}
	limits := regexp.MustCompile(`(?m)^  +((?:limit )?(?:app|reports|paid): .*)$`).FindAllStringSubmatch(string(guide), -1)
	for _, l := range limits {
		line := strings.TrimSuffix(l[1], ", mode: audit}")
		if !strings.Contains(string(script), line) {
			t.Errorf("the script has no %q", l[1])
		}
	}
	if more := regexp.MustCompile("(?s)```yaml\n(---.*?)```").FindSubmatch(guide); more == nil || !strings.HasSuffix(string(script), "-- more.yaml --\n"+string(more[1])) {
		t.Error("the script does not add to the policy what the guide adds")
	}
	if len(commands) < 8 || len(limits) < 6 {
		t.Errorf("only %d commands and %d limits found in the guide", len(commands), len(limits))
	}
}

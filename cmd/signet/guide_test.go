package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestGuideCommandsRun: whatever command the guide for auditors shows is run by its
// script, word for word.
func TestGuideCommandsRun(t *testing.T) {
	guide, err := os.ReadFile("../../docs/guides/verify-an-event.md")
	if err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile("testdata/script/guide_verify.txtar")
	if err != nil {
		t.Fatal(err)
	}
	commands := regexp.MustCompile("(?m)^    (signet .*)$|`(signet [a-z]+ [^`]*\\.[^`]*)`").FindAllStringSubmatch(string(guide), -1)
	for _, c := range commands {
		if command := c[1] + c[2]; !strings.Contains(string(script), "\nrc 0 "+command) {
			t.Errorf("the script does not run %q", command)
		}
	}
	if len(commands) < 9 {
		t.Errorf("only %d commands found in the guide", len(commands))
	}
}

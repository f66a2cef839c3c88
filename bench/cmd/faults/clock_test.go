package main

import (
	"errors"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The toolchain's time.Now is the one that a skewed binary replaces, and what comes out is
// Go; of a toolchain that changed it nothing is made.
func TestSkewSource(t *testing.T) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go"))
	if err != nil {
		t.Fatal(err)
	}
	source, err := skewSource(string(text))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.ParseFile(token.NewFileSet(), "time.go", source, 0); err != nil {
		t.Error(err)
	}
	if strings.Count(source, "sec += *clockOffset") != 1 {
		t.Error("time.Now does not add the offset")
	}
	if _, err := skewSource(strings.ReplaceAll(string(text), "runtimeNow()", "otherNow()")); !errors.Is(err, errToolchain) {
		t.Errorf("another time.Now: %v", err)
	}
}

func TestTimeline(t *testing.T) {
	var l timeline
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, d := range []time.Duration{0, time.Second, -30 * time.Second, -20 * time.Second, -21 * time.Second} {
		l.add(at.Add(d))
	}
	if l.back != 2 || l.largest != 31*time.Second {
		t.Errorf("%d steps back, the largest %v; want 2 and 31s", l.back, l.largest)
	}
}

// No two nodes may run so far apart that a stream forgets an event id which is tried again.
func TestSkewsStayWithinTheWindow(t *testing.T) {
	for _, s := range skews {
		if s.Abs() > maxSkew {
			t.Errorf("%v is more than maxSkew", s)
		}
	}
	if 2*maxSkew >= 3*time.Minute {
		t.Error("two nodes could be as far apart as the least duplicateWindow")
	}
}

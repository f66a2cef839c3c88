package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// deadLetters reads what the refused webhooks left, as an operator would.
func (d *demo) deadLetters() error {
	var list struct {
		Entries []struct {
			Seq        uint64 `json:"seq"`
			Reason     string `json:"reason"`
			Principal  string `json:"principal"`
			Subject    string `json:"subject"`
			Violations []struct {
				At      string `json:"at"`
				Message string `json:"message"`
			} `json:"violations"`
		} `json:"entries"`
	}
	// Dead letters are written after the answer: wait for the last one.
	for deadline := time.Now().Add(20 * time.Second); ; {
		out, err := d.signet("--context", "operator", "dlq", "ls", "--limit", "500", "-o", "json")
		if err != nil {
			return err
		}
		if err := json.Unmarshal(out, &list); err != nil {
			return fmt.Errorf("dlq ls: %w", err)
		}
		if len(list.Entries) >= broken || time.Now().After(deadline) {
			break
		}
		select {
		case <-d.ctx.Done():
			return d.ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	pointed := 0
	for i, e := range list.Entries {
		if e.Reason == "schema" && len(e.Violations) > 0 {
			pointed++
			if i < 3 {
				fmt.Printf("   %s: %s: %s\n", e.Subject, e.Violations[0].At, e.Violations[0].Message)
			}
		}
	}
	d.check("dead letters", len(list.Entries), broken)
	d.check("  with reason and JSON pointer", pointed, broken)
	return nil
}

func (d *demo) intruder() error {
	wait, err := d.start("intern")
	if err != nil {
		return err
	}
	started := time.Now()
	r, err := wait()
	if err != nil {
		return err
	}
	for _, what := range r.Denied {
		fmt.Printf("   denied: %s\n", what)
	}
	d.check("attempts without a grant that were denied", len(r.Denied), 3)
	// What the bucket may let through: its burst, and its rate while the flood lasted.
	most := limitBurst + int(time.Since(started).Seconds()*limitBurst) + 1
	// The publish with the source of another took a token, too: it got as far as the limit.
	held := r.Accepted >= limitBurst-1 && r.Accepted <= most && r.Accepted+r.Refused == flood
	fmt.Printf("   flood: %d published, %d accepted, %d refused with retry-after up to %s\n", flood, r.Accepted, r.Refused, r.RetryAfter.Round(time.Millisecond))
	d.check("flood held to 50/s with a burst of 50", held, true)
	d.check("  refusals said when to come back", r.RetryAfter > 0, true)
	return nil
}

// verify says what `signet verify` says of a file, offline, and returns its exit code.
func (d *demo) verify(name string) (int, error) {
	if _, err := d.signet("--context", "auditor", "keys", "ring", "--out", d.path("ring.json")); err != nil {
		return 0, err
	}
	root, err := os.ReadFile(d.path("state", "keys", "root.pub"))
	if err != nil {
		return 0, err
	}
	out, err := d.signet("verify", d.path(name), "--keyring", d.path("ring.json"), "--root", strings.TrimSpace(string(root)))
	var exit *exec.ExitError
	switch {
	case err == nil:
		fmt.Printf("   %s: %s\n", name, firstLine(out))
		return 0, nil
	case errors.As(err, &exit):
		fmt.Printf("   %s: %s\n", name, firstLine(append(out, err.Error()...)))
		return exit.ExitCode(), nil
	}
	return 0, err
}

// oneByte exports a stored event, verifies it offline, changes one byte of its
// data and verifies again.
func (d *demo) oneByte() error {
	event, err := d.signet("--context", "auditor", "sub", "github.push", "--since", "start", "--count", "1", "-o", "json")
	if err != nil {
		return err
	}
	verify := func(name string, event []byte) (int, error) {
		if err := os.WriteFile(d.path(name), event, 0o600); err != nil {
			return 0, err
		}
		return d.verify(name)
	}
	code, err := verify("event.json", event)
	if err != nil {
		return err
	}
	d.check("exported event verifies offline: exit code", code, 0)
	const member = `"data_base64":"`
	i := bytes.Index(event, []byte(member))
	if i < 0 {
		return errors.New("the exported event has no data_base64")
	}
	changed := bytes.Clone(event)
	at := i + len(member) + 10
	if changed[at] == 'A' {
		changed[at] = 'B'
	} else {
		changed[at] = 'A'
	}
	if code, err = verify("changed.json", changed); err != nil {
		return err
	}
	d.check("the same with one byte changed: exit code", code, 3)
	return nil
}

func firstLine(b []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	return line
}

func (d *demo) table(took time.Duration) error {
	wrong := 0
	fmt.Printf("\n%-48s %10s %10s\n", "", "got", "want")
	for _, r := range d.rows {
		mark := ""
		if r.got != r.want {
			mark = "  WRONG"
			wrong++
		}
		fmt.Printf("%-48s %10s %10s%s\n", r.what, r.got, r.want, mark)
	}
	fmt.Printf("\n%d checks in %s\n", len(d.rows), took.Round(time.Millisecond))
	if wrong > 0 {
		return fmt.Errorf("%d of %d counts are wrong", wrong, len(d.rows))
	}
	return nil
}

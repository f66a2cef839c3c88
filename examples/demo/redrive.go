package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// mended is the refused webhook that an operator mends: its repository lacks members that
// the schema has since required.
const mended = "github.branch_protection_rule.edited"

// redrive finds one dead letter, asks what would become of it now, mends its payload and
// brings it back: a new event, of the operator and not of who sent the first one.
func (d *demo) redrive() error {
	operator := func(args ...string) ([]byte, error) {
		return d.signet(append([]string{"--context", "operator", "dlq"}, args...)...)
	}
	var list struct {
		Entries []struct {
			Seq uint64 `json:"seq"`
		} `json:"entries"`
	}
	out, err := operator("ls", "--subject", mended, "--where", "/action=edited", "-o", "json")
	if err != nil {
		return err
	}
	if err := json.Unmarshal(out, &list); err != nil || len(list.Entries) == 0 {
		return fmt.Errorf("no dead letter of %s: %w", mended, err)
	}
	number := strconv.FormatUint(list.Entries[0].Seq, 10)
	stored := uint64(0)
	verdict := func(args ...string) (string, error) {
		out, err := operator(append([]string{"redrive", number, "--to", "all", "-o", "json"}, args...)...)
		var exit *exec.ExitError
		if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 3) { // 3: it stays a dead letter
			return "", err
		}
		var said struct {
			Verdict, Detail string
			StoredAt        uint64
		}
		if err := json.Unmarshal(out, &said); err != nil {
			return "", fmt.Errorf("dlq redrive: %w", err)
		}
		fmt.Printf("   dead letter %s: %s\n", number, strings.TrimSpace(said.Verdict+" "+said.Detail))
		stored = said.StoredAt
		return said.Verdict, nil
	}
	was, err := verdict("--dry-run")
	if err != nil {
		return err
	}
	d.check("a dry run says that it would be refused again", was, "refused")
	file := d.path("mended.json")
	if _, err := operator("show", number, "--payload", file); err != nil {
		return err
	}
	if err := mend(file); err != nil {
		return err
	}
	is, err := verdict("--payload", file)
	if err != nil {
		return err
	}
	d.check("one refused webhook mended and redriven", is, "redriven")
	var event struct {
		AuthID string `json:"authid"`
	}
	if out, err = d.signet("--context", "auditor", "sub", mended, "--since", fmt.Sprintf("seq:%d", stored), "--count", "1", "-o", "json"); err != nil {
		return err
	}
	if err := json.Unmarshal(out, &event); err != nil {
		return fmt.Errorf("sub: %w", err)
	}
	d.check("  stored as an event of", event.AuthID, "demo/operator")
	var left struct {
		Messages int `json:"messages"`
	}
	if out, err = operator("stats", "-o", "json"); err != nil {
		return err
	}
	if err := json.Unmarshal(out, &left); err != nil {
		return fmt.Errorf("dlq stats: %w", err)
	}
	d.check("  dead letters left", left.Messages, broken-1)
	return nil
}

// missing is what repositories have got since the delivery was recorded.
var missing = map[string]string{
	"custom_properties": "{}", "is_template": "false", "topics": "[]", "visibility": `"public"`, "web_commit_signoff_required": "false",
	"allow_forking": "true", "has_discussions": "false",
}

// mend adds what the schema misses.
func mend(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var payload map[string]json.RawMessage
	var repository map[string]json.RawMessage
	if err := json.Unmarshal(text, &payload); err != nil {
		return err
	}
	if err := json.Unmarshal(payload["repository"], &repository); err != nil {
		return err
	}
	for name, value := range missing {
		if repository[name] == nil {
			repository[name] = json.RawMessage(value)
		}
	}
	if payload["repository"], err = json.Marshal(repository); err != nil {
		return err
	}
	if text, err = json.Marshal(payload); err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o600)
}

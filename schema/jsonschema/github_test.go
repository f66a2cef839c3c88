package jsonschema

import (
	"context"
	"testing"
	"time"

	gh "github.com/signetbus/signet/examples/githubwebhooks"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/schema"
)

// broken lists the deliveries that really break their own definition: event,
// action, and where and how first. An independent validator (Python jsonschema
// 4.26 with the format checkers rfc3339-validator, rfc3986-validator and
// uri-template) finds the same 53. Most payloads are older than a property that
// the schema has since required.
var broken = []struct{ event, action, at, rule string }{
	{"branch_protection_rule", "edited", "/repository", "required"},
	{"check_run", "created", "/repository", "required"},
	{"check_run", "rerequested", "/check_run/check_suite/app/created_at", "format"},
	{"check_run", "rerequested", "/check_run/check_suite/app/created_at", "format"},
	{"check_suite", "completed", "/repository", "required"},
	{"code_scanning_alert", "reopened", "/alert", "additionalProperties"},
	{"commit_comment", "created", "/repository", "required"},
	{"create", "", "/repository", "required"},
	{"delete", "", "/repository", "required"},
	{"dependabot_alert", "fixed", "/repository", "required"},
	{"deploy_key", "created", "/repository", "required"},
	{"deployment", "created", "/repository", "required"},
	{"deployment_status", "created", "/repository", "required"},
	{"discussion", "created", "/repository", "required"},
	{"discussion_comment", "created", "/comment", "required"},
	{"fork", "", "/forkee", "required"},
	{"gollum", "", "/repository", "required"},
	{"installation", "deleted", "/installation", "required"},
	{"installation_repositories", "added", "/installation", "required"},
	{"issue_comment", "created", "/issue/labels/0", "required"},
	{"issues", "edited", "/issue/labels/0", "required"},
	{"label", "deleted", "/label", "required"},
	{"member", "added", "/repository", "required"},
	{"merge_group", "checks_requested", "/repository", "required"},
	{"meta", "deleted", "/repository", "required"},
	{"milestone", "created", "/repository", "required"},
	{"package", "published", "/repository", "required"},
	{"page_build", "", "/repository", "required"},
	{"ping", "", "/hook", "required"},
	{"project", "created", "/repository", "required"},
	{"project_card", "created", "/repository", "required"},
	{"project_column", "created", "/repository", "required"},
	{"public", "", "/repository", "required"},
	{"pull_request", "opened", "/pull_request/head/repo", "required"},
	{"pull_request_review", "submitted", "/pull_request/head/repo", "required"},
	{"pull_request_review_comment", "created", "/comment", "required"},
	{"pull_request_review_thread", "resolved", "/pull_request/head/repo", "required"},
	{"push", "", "/repository", "required"},
	{"release", "published", "/release/name", "type"},
	{"repository_dispatch", "on-demand-test", "/repository", "required"},
	{"repository", "publicized", "/repository", "required"},
	{"repository_import", "", "/repository", "required"},
	{"repository_vulnerability_alert", "create", "/alert", "required"},
	{"security_advisory", "published", "/security_advisory", "required"},
	{"sponsorship", "pending_tier_change", "/changes/tier/from", "required"},
	{"star", "created", "/repository", "required"},
	{"status", "", "/repository", "required"},
	{"team", "added_to_repository", "/repository", "required"},
	{"team_add", "", "/repository", "required"},
	{"watch", "started", "/repository", "required"},
	{"workflow_dispatch", "", "/repository", "required"},
	{"workflow_job", "in_progress", "/workflow_job", "required"},
	{"workflow_run", "completed", "/repository", "required"},
}

func webhookValidators(t testing.TB) map[string]schema.Validator {
	t.Helper()
	e := New(schema.Limits{})
	validators := map[string]schema.Validator{}
	for d := range gh.Deliveries() {
		if validators[d.Event] != nil {
			continue
		}
		v, err := e.Compile(context.Background(), webhookDocument(d.Event))
		if err != nil {
			t.Fatalf("%s: %v", d.Event, err)
		}
		validators[d.Event] = v
	}
	return validators
}

// TestGitHubDeliveries validates 329 real payloads, each by its own definition
// of one 344-definition document, to the exact list of broken ones.
func TestGitHubDeliveries(t *testing.T) {
	start := time.Now()
	validators := webhookValidators(t)
	t.Logf("%d bindings into one document compiled in %v", len(validators), time.Since(start))
	n, next := 0, 0
	for d := range gh.Deliveries() {
		n++
		got := validators[d.Event].Validate([]byte("application/json"), d.Payload)
		if got.OK {
			continue
		}
		if got.Code != wire.CodeSchemaViolation || len(got.Violations) == 0 {
			t.Fatalf("%s/%s: %+v", d.Event, d.Action, got)
		}
		first := got.Violations[0]
		if next >= len(broken) {
			t.Errorf("also broken: %s/%s at %s: %s", d.Event, d.Action, first.At, first.Message)
			continue
		}
		want := broken[next]
		next++
		if d.Event != want.event || d.Action != want.action || first.At != want.at || first.Rule != want.rule {
			t.Errorf("got {%q, %q, %q, %q}, want %q", d.Event, d.Action, first.At, first.Rule, want)
		}
	}
	if n != 329 || next != 53 || len(broken) != 53 {
		t.Errorf("%d deliveries, %d broken (%d listed); want 329 and 53", n, next, len(broken))
	}
}

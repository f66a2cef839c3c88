package broker_test

import (
	"os"
	"strings"
	"testing"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/broker/store"
	"github.com/signetbus/signet/client/admin"
)

// A broker whose storage.maxBytes was chosen before it had streams of its own starts,
// keeps its records and logs, and says in its health how much is missing. A policy that
// makes it worse is refused, one that does not is taken.
func TestOwnStreamsThatStorageDoesNotHold(t *testing.T) {
	sum := store.NodeBytes(brokertest.New(t, brokertest.Options{Policy: logPolicy}).Policy().Tenants()[0])
	b := brokertest.New(t, brokertest.Options{Policy: logPolicy, Change: func(c *broker.Config) { c.Storage.MaxBytes = broker.ByteSize(sum) }})
	ctx := within(t)
	brokertest.PublishNumbers(ctx, t, b.Client("app"), "orders.created", 0, 10)
	watchLog(t, b.Client("auditor"), b.State.Root).await(ctx, 10)
	api := admin.New(b.Client("operator"))
	if list := must(api.Audit(ctx, admin.AuditQuery{}, 0))(t); len(list.Records) == 0 {
		t.Error("nothing is on record")
	}
	detail := ""
	for _, h := range must(api.Status(ctx))(t).Health {
		if h.Part == "room" && !h.OK {
			detail = h.Detail
		}
	}
	if !strings.Contains(detail, "raise it to") {
		t.Errorf("health of the room: %q", detail)
	}
	text := string(must(os.ReadFile(b.State.Policy))(t))
	change := func(old, anew string) error {
		t.Helper()
		if !strings.Contains(text, old) {
			t.Fatalf("the policy has no %q", old)
		}
		check(t, os.WriteFile(b.State.Policy, []byte(strings.Replace(text, old, anew, 1)), 0o600))
		return b.Reload(ctx)
	}
	if err := change("maxBytes: 64MiB", "maxBytes: 80MiB"); err == nil || !strings.Contains(err.Error(), "storage.maxBytes") {
		t.Errorf("a policy that needs more: %v", err)
	}
	if err := change("admin: [log, status]", "admin: [log]"); err != nil {
		t.Errorf("a policy that needs no more: %v", err)
	}
}

package store

import (
	"errors"
	"strings"
	"testing"

	"github.com/signetbus/signet/broker/internal/embed"
	"github.com/signetbus/signet/internal/wire"
)

// TestOwnStreams: the broker's own streams are made in its own account, grow with the
// policy, and do not shrink with it.
func TestOwnStreams(t *testing.T) {
	one := compile(t, shop)
	two := compile(t, shop+"\n---\n"+strings.Replace(shop, "tenant: shop", "tenant: other", 1))
	r := newRig(t, one, nil)
	ctx := testContext(t)
	if err := ApplyOwn(ctx, r.store, one); !errors.Is(err, ErrNoAccount) {
		t.Fatalf("without the account: %v", err)
	}
	if n, err := OwnReservation(ctx, r.store, one); err != nil || n != OwnAccountBytes(one, 1) {
		t.Errorf("reservation without the account: %d, %v", n, err)
	}
	if err := r.server.ReloadAccounts([]embed.TenantAccount{
		{Name: "shop", MaxBytes: AccountBytes(one.Tenant("shop"), 1)}, {Name: wire.BrokerAccount, MaxBytes: OwnAccountBytes(two, 1)},
	}); err != nil {
		t.Fatal(err)
	}
	audit := func() int64 {
		t.Helper()
		s, err := r.store.StreamInfo(ctx, wire.BrokerAccount, StreamAudit)
		if err != nil {
			t.Fatal(err)
		}
		return s.MaxBytes
	}
	if err := ApplyOwn(ctx, r.store, one); err != nil {
		t.Fatal(err)
	}
	small := audit()
	if err := ApplyOwn(ctx, r.store, two); err != nil {
		t.Fatal(err)
	}
	large := audit()
	if want := int64(auditBase + auditPerLog + two.Tenants()[0].Audit.MaxBytes + two.Tenants()[1].Audit.MaxBytes); large != want {
		t.Errorf("%d bytes for two tenants, want %d", large, want)
	}
	if large <= small {
		t.Errorf("%d bytes for one tenant, %d for two", small, large)
	}
	if err := ApplyOwn(ctx, r.store, one); err != nil {
		t.Fatal(err)
	}
	if got := audit(); got != large {
		t.Errorf("the stream has %d bytes after the tenant is gone, had %d", got, large)
	}
	if n, err := OwnReservation(ctx, r.store, one); err != nil || n != OwnAccountBytes(two, 1) {
		t.Errorf("reservation: %d, %v, want what the streams have", n, err)
	}
	nc, err := r.store.Conn(wire.BrokerAccount)
	if err != nil {
		t.Fatal(err)
	}
	for _, subject := range []string{"audit.record.shop", "log.shop.ORDERS.tile.0.0", "keys.ring", "heads.shop.bjE"} {
		if m, err := nc.RequestWithContext(ctx, subject, []byte("x")); err != nil || strings.Contains(string(m.Data), "error") {
			t.Errorf("%s: %v", subject, err)
		}
	}
}

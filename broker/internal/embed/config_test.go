package embed

import (
	"flag"
	"os"
	"testing"
)

var update = flag.Bool("update", false, "rewrite testdata")

// The golden text is what nats-server reads; a diff in it is a change of the
// server's security and durability settings, to be looked at.
func TestRender(t *testing.T) {
	tenants := []TenantAccount{{Name: "shop", MaxBytes: 64 << 20}, {Name: "lab", MaxBytes: 32 << 20}}
	for _, tc := range []struct {
		name   string
		config Config
	}{
		{"barrier", Config{StoreDir: "/data", ServerName: "n1"}},
		{"sync-always", Config{StoreDir: `/da"ta`, ServerName: "n1", SyncAlways: true, LoopbackPort: 4333, MaxPayload: 1 << 20, MaxPending: 8 << 20}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			limits := storeLimits{}.grow(tenants)
			got := tc.config.render(tenants, limits)
			file := "testdata/" + tc.name + ".conf"
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			o, err := tc.config.options(tenants, limits, newTickets(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if o.SyncAlways != tc.config.SyncAlways || !tc.config.SyncAlways && o.SyncInterval != LazySyncInterval {
				t.Errorf("sync: always %v, interval %v", o.SyncAlways, o.SyncInterval)
			}
			if o.StoreDir != tc.config.StoreDir || o.Host != "127.0.0.1" || !o.NoSigs || o.NoJetStreamStrict || o.HTTPPort != 0 || o.ProfPort != 0 ||
				o.Cluster.Port != 0 || o.Gateway.Port != 0 || o.LeafNode.Port != 0 || o.Websocket.Port != 0 || o.MQTT.Port != 0 || o.NoAuthUser != "" {
				t.Errorf("options: %+v", o)
			}
			if (storeLimits{}).grow(tenants[:1]).file >= limits.grow(tenants[:1]).file {
				t.Error("a limit went down")
			}
		})
	}
}

package doctor_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"
	"go.uber.org/goleak"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/internal/doctor"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func edit(t *testing.T, file, old, with string) {
	t.Helper()
	b, err := os.ReadFile(file)
	must(t, err)
	if !strings.Contains(string(b), old) {
		t.Fatalf("%s has no %q", file, old)
	}
	must(t, os.WriteFile(file, []byte(strings.Replace(string(b), old, with, 1)), 0o600))
}

// newFolder is what signet init makes, after a first start.
func newFolder(t *testing.T) *broker.State {
	t.Helper()
	st, err := broker.Setup{Dir: t.TempDir(), Name: "n1", Hosts: []string{"bus.example.org"}, Listen: "127.0.0.1:0"}.Run()
	must(t, err)
	must(t, os.Mkdir(filepath.Join(st.Dir, "store"), 0o700))
	must(t, os.Remove(st.RootSeed))
	return st
}

// worst is the worst severity of a check and what it said; found is false when the
// check said nothing.
func worst(list []doctor.Finding, id string) (f doctor.Finding, found bool) {
	for i := range list {
		if list[i].ID == id && (!found || doctor.Worse(f.Severity, list[i].Severity) != f.Severity) {
			f, found = list[i], true
		}
	}
	return f, found
}

func want(t *testing.T, list []doctor.Finding, id string, s doctor.Severity) {
	t.Helper()
	f, ok := worst(list, id)
	switch {
	case !ok:
		t.Errorf("%s said nothing, want %s", id, s)
	case f.Severity != s:
		t.Errorf("%s is %s, want %s: %s %s", id, f.Severity, s, f.Object, f.What)
	case s != doctor.OK && f.Fix == "":
		t.Errorf("%s says no fix", id)
	case f.What == "":
		t.Errorf("%s says nothing", id)
	}
}

func TestOfflineHealthy(t *testing.T) {
	st := newFolder(t)
	th := doctor.DefaultThresholds()
	th.DiskFree = doctor.Pair{} // the machine of the test may be full
	list, folder := doctor.Offline(t.Context(), st.Config, nil, time.Now(), th)
	for _, id := range []string{
		"CONFIG_001", "CONFIG_002", "POLICY_001", "KEYS_001", "KEYS_002", "KEYS_004", "FILE_001", "CERT_001", "CERT_002", "CLOCK_001",
		"DISK_001", "DISK_002", "DURABILITY_001",
	} {
		want(t, list, id, doctor.OK)
	}
	for i := range list {
		if list[i].Severity == doctor.Critical {
			t.Errorf("%+v", list[i])
		}
	}
	if len(folder.PolicyDigest) != 64 || folder.Config.Name != "n1" {
		t.Errorf("folder: digest %q, name %q", folder.PolicyDigest, folder.Config.Name)
	}
}

func TestOfflineBroken(t *testing.T) {
	const day = 24 * time.Hour
	for _, tt := range []struct {
		name, id string
		severity doctor.Severity
		broken   func(t *testing.T, st *broker.State)
		later    time.Duration // how far the clock is off
		change   func(*doctor.Thresholds)
	}{
		{name: "unknown key", id: "CONFIG_001", severity: doctor.Critical, broken: func(t *testing.T, st *broker.State) { edit(t, st.Config, "name:", "node_name:") }},
		{name: "no YAML", id: "CONFIG_001", severity: doctor.Critical, broken: func(t *testing.T, st *broker.State) { edit(t, st.Config, "name:", "{") }},
		{name: "faulty policy", id: "POLICY_001", severity: doctor.Critical, broken: func(t *testing.T, st *broker.State) { edit(t, st.Policy, "events.>", "events.>>") }},
		{name: "a start would fail", id: "CONFIG_002", severity: doctor.Critical, broken: func(t *testing.T, st *broker.State) { edit(t, st.Policy, "events.>", "events.>>") }},
		{name: "policy that others may write", id: "POLICY_001", severity: doctor.Critical, broken: func(t *testing.T, st *broker.State) { must(t, os.Chmod(st.Policy, 0o666)) }},
		{name: "node key that others may read", id: "FILE_001", severity: doctor.Critical, broken: func(t *testing.T, st *broker.State) { must(t, os.Chmod(st.NodeSeed, 0o644)) }},
		{name: "TLS key that the group may read", id: "FILE_001", severity: doctor.Warning, broken: func(t *testing.T, st *broker.State) { must(t, os.Chmod(st.Key, 0o640)) }},
		{name: "no TLS key", id: "FILE_001", severity: doctor.Critical, broken: func(t *testing.T, st *broker.State) { must(t, os.Remove(st.Key)) }},
		{name: "changed keyring", id: "KEYS_001", severity: doctor.Critical, broken: func(t *testing.T, st *broker.State) {
			b, err := os.ReadFile(st.Keyring)
			must(t, err)
			b[len(b)/2] ^= 1
			must(t, os.WriteFile(st.Keyring, b, 0o600))
		}},
		{name: "keyring that expires soon", id: "KEYS_001", severity: doctor.Warning, later: 340 * day},
		{name: "keyring that expires very soon", id: "KEYS_001", severity: doctor.Critical, later: 360 * day},
		{name: "expired keyring", id: "KEYS_001", severity: doctor.Critical, later: 366 * day},
		{name: "node key of nobody", id: "KEYS_002", severity: doctor.Critical, broken: func(t *testing.T, st *broker.State) {
			pair, err := nkeys.CreateServer()
			must(t, err)
			seed, err := pair.Seed()
			must(t, err)
			must(t, os.WriteFile(st.NodeSeed, seed, 0o600))
		}},
		{name: "no seed in the file", id: "KEYS_002", severity: doctor.Critical, broken: func(t *testing.T, st *broker.State) {
			must(t, os.WriteFile(st.NodeSeed, []byte("hunter2hunter2"), 0o600))
		}},
		{name: "root seed beside the broker", id: "KEYS_004", severity: doctor.Warning, broken: func(t *testing.T, st *broker.State) { must(t, os.WriteFile(st.RootSeed, nil, 0o600)) }},
		{name: "expired certificate", id: "CERT_001", severity: doctor.Critical, later: 900 * day},
		{name: "no certificate", id: "CERT_001", severity: doctor.Critical, broken: func(t *testing.T, st *broker.State) { must(t, os.WriteFile(st.Cert, []byte("x"), 0o600)) }},
		{name: "certificate without the advertised name", id: "CERT_002", severity: doctor.Critical, broken: func(t *testing.T, st *broker.State) {
			edit(t, st.Config, "# advertise: [broker-1.example.org:4222]", "advertise: [other.example.org:4222]")
		}},
		{name: "clock behind", id: "CLOCK_001", severity: doctor.Critical, later: -day},
		{name: "no state", id: "DISK_001", severity: doctor.Warning, broken: func(t *testing.T, st *broker.State) { must(t, os.Remove(filepath.Join(st.Dir, "store"))) }},
		{name: "state that others may write", id: "DISK_001", severity: doctor.Critical, broken: func(t *testing.T, st *broker.State) { must(t, os.Chmod(filepath.Join(st.Dir, "store"), 0o777)) }},
		{name: "state that others may read", id: "DISK_001", severity: doctor.Warning, broken: func(t *testing.T, st *broker.State) { must(t, os.Chmod(filepath.Join(st.Dir, "store"), 0o755)) }},
		{name: "little space", id: "DISK_002", severity: doctor.Critical, change: func(th *doctor.Thresholds) { th.DiskFree = doctor.Pair{Warning: 101, Critical: 101} }},
		{name: "streams larger than the volume", id: "DISK_003", severity: doctor.Warning, broken: func(t *testing.T, st *broker.State) { edit(t, st.Config, "maxBytes: 10GiB", "maxBytes: 1024TiB") }},
		{name: "unsafe", id: "DURABILITY_001", severity: doctor.Critical, broken: func(t *testing.T, st *broker.State) {
			edit(t, st.Config, "# durability: barrier", "durability: unsafe-lazy-sync")
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			st := newFolder(t)
			th := doctor.DefaultThresholds()
			if tt.broken != nil {
				tt.broken(t, st)
			}
			if tt.change != nil {
				tt.change(&th)
			}
			list, _ := doctor.Offline(t.Context(), st.Config, nil, time.Now().Add(tt.later), th)
			want(t, list, tt.id, tt.severity)
			for i := range list {
				if strings.Contains(list[i].What, "hunter2") {
					t.Errorf("a secret file is quoted: %+v", list[i])
				}
			}
		})
	}
}

func TestOfflineCluster(t *testing.T) {
	c := brokertest.PrepareCluster(t, 3, brokertest.Options{})
	st := c.Nodes[0].State
	th := doctor.DefaultThresholds()
	list, _ := doctor.Offline(t.Context(), st.Config, nil, time.Now(), th)
	want(t, list, "CERT_003", doctor.OK)
	list, _ = doctor.Offline(t.Context(), st.Config, nil, time.Now().Add(900*24*time.Hour), th)
	want(t, list, "CERT_003", doctor.Critical)
}

// Every finding is of a check on the list, and the documentation has the list.
func TestChecksAreListed(t *testing.T) {
	page, err := os.ReadFile("../../docs/operations.md")
	must(t, err)
	known := map[string]bool{}
	for _, c := range doctor.Checks() {
		if known[c.ID] {
			t.Errorf("%s is there twice", c.ID)
		}
		known[c.ID] = true
		if !bytes.Contains(page, []byte("| `"+c.ID+"` | "+c.Title+" |")) {
			t.Errorf("docs/operations.md has no row | `%s` | %s |", c.ID, c.Title)
		}
	}
	list, _ := doctor.Offline(context.Background(), newFolder(t).Config, nil, time.Now(), doctor.DefaultThresholds())
	for i := range list {
		if !known[list[i].ID] {
			t.Errorf("%s is not on the list", list[i].ID)
		}
	}
}

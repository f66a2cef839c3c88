package doctor

import (
	"bytes"
	"encoding/json"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/client/admin"
)

func severityOf(t *testing.T, list findings, id, object string) Severity {
	t.Helper()
	for i := range list {
		if list[i].ID == id && list[i].Object == object {
			return list[i].Severity
		}
	}
	t.Fatalf("no finding %s %q", id, object)
	return Unknown
}

// Volumes that a test cannot mount.
func TestRoom(t *testing.T) {
	good := volume{kind: "xfs", mount: "/data", free: 60 << 30, total: 100 << 30, inodes: 50, allInodes: 100}
	for _, tt := range []struct {
		name, id string
		want     Severity
		change   func(*volume)
	}{
		{"half free", idDiskFree, OK, func(*volume) {}},
		{"little space", idDiskFree, Warning, func(v *volume) { v.free = 15 << 30 }},
		{"less space", idDiskFree, Critical, func(v *volume) { v.free = 5 << 30 }},
		{"no space", idDiskFree, Critical, func(v *volume) { v.free = 0 }},
		{"room for all", idDiskRoom, OK, func(*volume) {}},
		{"no room for all", idDiskRoom, Warning, func(v *volume) { v.free = 20 << 30 }},
		{"local", idDiskType, OK, func(*volume) {}},
		{"memory", idDiskType, Critical, func(v *volume) { v.kind = "tmpfs" }},
		{"network", idDiskType, Critical, func(v *volume) { v.kind = "nfs" }},
		{"container layer", idDiskType, Warning, func(v *volume) { v.kind = "overlayfs" }},
		{"of its own", idDiskOwn, OK, func(*volume) {}},
		{"of the system", idDiskOwn, Warning, func(v *volume) { v.mount = "/" }},
		{"inodes", idInodes, OK, func(*volume) {}},
		{"few inodes", idInodes, Critical, func(v *volume) { v.inodes = 1 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := good
			tt.change(&v)
			var all findings
			offline{&all}.room("/data", v, 10<<30, 50<<30, DefaultThresholds())
			if got := severityOf(t, all, tt.id, "/data"); got != tt.want {
				t.Errorf("%s is %s, want %s", tt.id, got, tt.want)
			}
		})
	}
}

func TestVolumeOfHere(t *testing.T) {
	if runtime.GOOS != "linux" {
		if _, err := volumeOf("."); err == nil {
			t.Error("a volume is known where it cannot be")
		}
		return
	}
	v, err := volumeOf(t.TempDir())
	if err != nil || v.total == 0 || v.free > v.total || !strings.HasPrefix(v.mount, "/") || v.kind == "" {
		t.Errorf("%+v, %v", v, err)
	}
	if v, err := volumeOf("/proc"); err != nil || v.mount != "/proc" {
		t.Errorf("%+v, %v", v, err)
	}
	if n, err := openFileLimit(); err != nil || n == 0 {
		t.Errorf("limit %d, %v", n, err)
	}
}

func TestFileLimit(t *testing.T) {
	if runtime.GOOS != "linux" {
		return
	}
	for want, connections := range map[Severity]int{OK: -1, Warning: 1 << 55} {
		limit, err := openFileLimit()
		if err != nil {
			t.Fatal(err)
		}
		if want == OK && limit < filesBeside {
			t.Fatalf("the limit of this test is %d", limit)
		}
		var all findings
		offline{&all}.fileLimit(&broker.Config{Gate: broker.GateConfig{MaxConnections: connections}})
		if got := severityOf(t, all, idFileLimit, ""); got != want {
			t.Errorf("%d connections: %s, want %s", connections, got, want)
		}
	}
}

func TestReplication(t *testing.T) {
	var all findings
	online{&all}.replication([]Replication{
		{Stream: "good", Leader: "n1", Want: 3, Current: 3},
		{Stream: "less", Leader: "n1", Want: 3, Current: 2},
		{Stream: "few", Leader: "n1", Want: 3, Current: 1},
		{Stream: "none", Want: 3, Current: 1},
	})
	for _, tt := range []struct {
		id, stream string
		want       Severity
	}{
		{idLeader, "good", OK}, {idReplicas, "good", OK}, {idReplicas, "less", Warning}, {idReplicas, "few", Critical}, {idLeader, "none", Critical},
	} {
		if got := severityOf(t, all, tt.id, tt.stream); got != tt.want {
			t.Errorf("%s %s is %s, want %s", tt.id, tt.stream, got, tt.want)
		}
	}
}

func TestCompareNodes(t *testing.T) {
	node := func(digest, version string, ring uint64) nodeState {
		return nodeState{address: "tls://" + digest + version, ringVersion: ring, status: &admin.Status{
			Server: admin.ServerStatus{Name: digest + version + number(ring), Version: version}, Policy: admin.PolicyStatus{Digest: digest},
		}}
	}
	named := func(n nodeState, name string) nodeState {
		n.status.Server.Name = name
		return n
	}
	for _, tt := range []struct {
		name, id string
		nodes    []nodeState
		want     Severity
	}{
		{"same", idNodesRing, []nodeState{node("a", "1", 7), named(node("a", "1", 7), "n2")}, OK},
		{"one answers for the other", idNodes, []nodeState{node("a", "1", 7), node("a", "1", 7)}, Critical},
		{"keyring", idNodesRing, []nodeState{node("a", "1", 7), node("a", "1", 8)}, Critical},
		{"version", idNodesVersion, []nodeState{node("a", "1", 7), node("a", "2", 7)}, Warning},
		{"policy", idNodesPolicy, []nodeState{node("a", "1", 7), node("b", "1", 7)}, Critical},
		{"one of three is gone", idNodes, []nodeState{node("a", "1", 7), named(node("a", "1", 7), "n2"), {}}, Warning},
		{"two of three are gone", idNodes, []nodeState{node("a", "1", 7), {}, {}}, Critical},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var all findings
			online{&all}.compare(tt.nodes, nil)
			if got := severityOf(t, all, tt.id, ""); got != tt.want {
				t.Errorf("%s is %s, want %s", tt.id, got, tt.want)
			}
		})
	}
}

func report() *Report {
	var f findings
	f.below(idDiskFree, `/da"ta|x`, 15, "%", Pair{20, 10}, "buy\nmore", "15%% | free\nof 'it'")
	f.above(idStuck, "S c", 1, "s", Pair{900, 3600}, "", "fine")
	f.add(idScrape, "", Unknown, "look", "?")
	f.add(idRootSeed, "x", Warning, "take it away", "there")
	return NewReport(time.Unix(1_800_000_000, 0), f, []string{idRootSeed})
}

func TestReportOrder(t *testing.T) {
	r := report()
	if r.Severity != Warning || len(r.Findings) != 3 || r.Findings[0].ID != idDiskFree || r.Findings[1].ID != idScrape || r.Findings[2].Fix != "" {
		t.Errorf("%+v", r)
	}
	if empty := NewReport(time.Now(), nil, nil); empty.Severity != Unknown {
		t.Errorf("nothing was examined, and that is %s", empty.Severity)
	}
	for _, tt := range []struct{ x, y, want Severity }{
		{OK, Unknown, Unknown}, {Unknown, Warning, Warning}, {Critical, Unknown, Critical}, {Warning, Critical, Critical}, {OK, OK, OK},
	} {
		if got := Worse(tt.x, tt.y); got != tt.want {
			t.Errorf("worse of %s and %s is %s", tt.x, tt.y, got)
		}
	}
	b, err := json.Marshal(r)
	if err != nil || !strings.Contains(string(b), `"severity":"warning"`) {
		t.Errorf("%s, %v", b, err)
	}
}

func TestNagiosIsOneLine(t *testing.T) {
	var out bytes.Buffer
	if err := report().WriteNagios(&out); err != nil {
		t.Fatal(err)
	}
	want := `SIGNET WARNING - 0 critical, 1 warning, 1 unknown, 1 ok: DISK_002 /da"ta/x: 15% / free of 'it'; OPS_003: ? | ` +
		`'DISK_002 /da"ta/x'=15%;20:;10: 'CONSUMER_002 S c'=1s;900;3600` + "\n"
	if out.String() != want {
		t.Errorf("got  %swant %s", out.String(), want)
	}
}

func TestPrometheusText(t *testing.T) {
	var out bytes.Buffer
	if err := report().WritePrometheus(&out); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"signet_doctor_severity 1", "signet_doctor_time_seconds 1800000000", `signet_doctor_check{id="DISK_002",object="/da\"ta|x"} 1`,
		`signet_doctor_check{id="OPS_003",object=""} 3`, `signet_doctor_value{id="CONSUMER_002",object="S c"} 1`,
	} {
		if !strings.Contains(out.String(), "\n"+line+"\n") {
			t.Errorf("there is no line %s in\n%s", line, out.String())
		}
	}
}

func TestGrown(t *testing.T) {
	before := []admin.ConsumerStatus{{Stream: "S", Name: "stuck", Pending: 5, AckFloor: 3}, {Stream: "S", Name: "slow", Pending: 5, AckFloor: 3}}
	after := []admin.ConsumerStatus{{Stream: "S", Name: "stuck", Pending: 9, AckFloor: 3}, {Stream: "S", Name: "slow", Pending: 9, AckFloor: 4}, {Stream: "S", Name: "new", Pending: 9}}
	var all findings
	online{&all}.grown(before, after, time.Second)
	if severityOf(t, all, idFallsBehind, "S stuck") != Warning || severityOf(t, all, idFallsBehind, "S slow") != OK || len(all) != 2 {
		t.Errorf("%+v", all)
	}
}

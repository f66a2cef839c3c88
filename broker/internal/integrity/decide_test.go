package integrity

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestDecide(t *testing.T) {
	bad := []Damage{{Kind: KindChecksum, File: "x/2.blk", Offset: 77, From: 40, To: 41}}
	orders := func(replicas int) Replica {
		return Replica{Account: "shop", Stream: "ORDERS", Replicas: replicas, Damage: bad}
	}
	tail := func(replicas int) Replica {
		return Replica{Account: "shop", Stream: "ORDERS", Replicas: replicas, Damage: []Damage{{Kind: KindTail, From: 40, To: 41}}}
	}
	group := func(name, stream, consumer string) Replica {
		return Replica{Account: "shop", Stream: stream, Consumer: consumer, Group: name, Damage: bad}
	}
	consent := map[string]bool{"shop/ORDERS": true}
	for _, tt := range []struct {
		name     string
		replicas []Replica
		s        Situation
		want     Action
	}{
		{"sound", []Replica{{Account: "shop", Stream: "ORDERS", Replicas: 3}}, Situation{}, ActionServe},
		{"one node", []Replica{orders(1)}, Situation{}, ActionRefuse},
		{"one node, consent", []Replica{orders(1)}, Situation{Consent: consent}, ActionServe},
		{"one node, consent for another", []Replica{orders(1)}, Situation{Consent: map[string]bool{"shop/PAYMENTS": true}}, ActionRefuse},
		{"one node, consent for one of two", []Replica{orders(1), {Account: "shop", Stream: "PAYMENTS", Damage: bad}}, Situation{Consent: consent}, ActionRefuse},
		{"R3 with peers", []Replica{orders(3)}, Situation{Clustered: true}, ActionSetAside},
		{"R3 with peers and consent: healing is better", []Replica{orders(3)}, Situation{Clustered: true, Consent: consent}, ActionSetAside},
		{"R5 with peers", []Replica{orders(5)}, Situation{Clustered: true}, ActionSetAside},
		{"R2 with peers", []Replica{orders(2)}, Situation{Clustered: true}, ActionRefuse},
		{"R1 in a cluster", []Replica{orders(1)}, Situation{Clustered: true}, ActionRefuse},
		{"R3 without peers", []Replica{orders(3)}, Situation{}, ActionRefuse},
		{"R3 that lacks its tail, without peers", []Replica{tail(3)}, Situation{}, ActionServe},
		{"R3 that lacks its tail, with peers", []Replica{tail(3)}, Situation{Clustered: true}, ActionSetAside},
		{"R1 that lacks its tail", []Replica{tail(1)}, Situation{}, ActionRefuse},
		{"R3 and R1", []Replica{orders(3), {Account: "shop", Stream: "LOCAL", Replicas: 1, Damage: bad}}, Situation{Clustered: true}, ActionRefuse},
		{"Raft group of a stream", []Replica{group("S-R3F-abc", "ORDERS", "")}, Situation{Clustered: true}, ActionSetAside},
		{"Raft group of a consumer", []Replica{group("C-R3F-abc", "ORDERS", "w")}, Situation{Clustered: true}, ActionSetAside},
		{"meta group", []Replica{group("_meta_", "", "")}, Situation{Clustered: true, Consent: consent}, ActionRefuse},
		{"Raft group of nobody knows whom", []Replica{group("S-R3F-abc", "", "")}, Situation{Clustered: true}, ActionSetAside},
	} {
		v := Decide(&Report{Replicas: tt.replicas}, tt.s)
		if v.Action != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, v.Action, tt.want)
		}
		if err := v.Err(); (err != nil) != (tt.want == ActionRefuse) || err != nil && !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: error %v", tt.name, err)
		}
	}
	text := Decide(&Report{Replicas: []Replica{orders(1)}}, Situation{}).Err().Error()
	for _, want := range []string{"shop/ORDERS", "2.blk", "sequences 40 to 41", "backup", "--accept-damage shop/ORDERS"} {
		if !strings.Contains(text, want) {
			t.Errorf("the error does not say %q: %s", want, text)
		}
	}
}

// TestSetAside: folders are moved as they are, and the quarantine does not grow forever.
func TestSetAside(t *testing.T) {
	dir := ordersStore(t)
	msgs := filepath.Join(dir, "jetstream/$G/streams/ORDERS/msgs")
	flip(t, filepath.Join(msgs, "2.blk"), 500, 1)
	want := read(t, filepath.Join(msgs, "2.blk"))
	now := time.Now()
	for i := range MaxQuarantined {
		rep := mustCheck(t, Options{Dir: dir})
		a, err := SetAside(dir, rep, replica(t, rep, "$G/ORDERS"), now.Add(time.Duration(i)*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		if got := read(t, filepath.Join(a.Folder, "ORDERS/msgs/2.blk")); string(got) != string(want) || a.Kept != i+1 {
			t.Errorf("kept %d, or the block is not as it was", a.Kept)
		}
		read(t, filepath.Join(a.Folder, "report.json"))
		if rep := mustCheck(t, Options{Dir: dir}); len(rep.Replicas) != 0 {
			t.Fatalf("the stream is still there: %+v", rep.Replicas)
		}
		if err := os.Rename(filepath.Join(a.Folder, "ORDERS"), filepath.Dir(msgs)); err != nil {
			t.Fatal(err)
		}
	}
	rep := mustCheck(t, Options{Dir: dir})
	if _, err := SetAside(dir, rep, replica(t, rep, "$G/ORDERS"), now.Add(time.Hour)); !errors.Is(err, ErrQuarantineFull) {
		t.Errorf("one more: %v", err)
	}
	if len(mustCheck(t, Options{Dir: dir}).Damaged()) != 1 {
		t.Error("the store was touched though the quarantine is full")
	}
	if _, err := SetAside(dir, rep, &Replica{Group: metaGroup}, now); !errors.Is(err, ErrDamaged) {
		t.Errorf("the meta group: %v", err)
	}
}

// TestAccepted: damage that the operator has accepted does not stop the next start, and
// other damage does.
func TestAccepted(t *testing.T) {
	dir := ordersStore(t)
	msgs := filepath.Join(dir, "jetstream/$G/streams/ORDERS/msgs")
	flip(t, filepath.Join(msgs, "2.blk"), 500, 1)
	l := mustLedger(t, dir)
	l.Accept(replica(t, mustCheck(t, Options{Dir: dir, Ledger: l}), "$G/ORDERS"), time.Now())
	if err := l.Save(); err != nil {
		t.Fatal(err)
	}
	l = mustLedger(t, dir)
	if rep := mustCheck(t, Options{Dir: dir, Ledger: l}); len(rep.Damaged()) != 0 {
		t.Errorf("accepted, and damaged again: %v", rep.Damaged()[0].Damage)
	}
	if a := l.Accepted()["$G/ORDERS"]; !strings.Contains(a, "2.blk") {
		t.Errorf("got %q", a)
	}
	// The server truncates the block there: a gap instead of a wrong record.
	if err := os.Remove(filepath.Join(msgs, "index.db")); err != nil {
		t.Fatal(err)
	}
	stopServer(startServer(t, dir))
	if rep := mustCheck(t, Options{Dir: dir, Ledger: l}); len(rep.Damaged()) != 0 {
		t.Errorf("the hole that was accepted: %v", rep.Damaged()[0].Damage)
	}
	flip(t, filepath.Join(msgs, "3.blk"), 500, 1)
	if rep := mustCheck(t, Options{Dir: dir, Ledger: l}); len(rep.Damaged()) != 1 {
		t.Error("new damage passes as accepted")
	}
}

package auditlog

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// last is the position after a message.
func (tr *trail) last(message int) Position {
	tr.t.Helper()
	b, err := ParseBatch(tr.messages[message])
	if err != nil {
		tr.t.Fatal(err)
	}
	return b.Last()
}

// say appends a pruned record of a node that names an end of one of its chains.
func (tr *trail) say(node string, end Position) {
	tr.t.Helper()
	p := Pruning{Chain: end.Chain, First: 1, Last: end.Seq, Hash: end.Hash, From: began, Until: began.Add(time.Minute), Why: PrunedAge}
	w := tr.writers[node]
	data, _, next, err := w.Batch([]Entry{p.Entry(began, "shop")}, began.Add(2*time.Minute), tr.keys[node])
	if err != nil {
		tr.t.Fatal(err)
	}
	w.Advance(next)
	tr.messages = append(tr.messages, data)
}

// drop takes messages away.
func (tr *trail) drop(messages ...int) {
	slices.Sort(messages)
	for _, i := range slices.Backward(messages) {
		tr.messages = slices.Delete(tr.messages, i, i+1)
	}
}

// prunedTrail is standard, without the first two messages of n1, which says so.
func prunedTrail(t testing.TB) *trail {
	tr := standard(t)
	tr.say("n1", tr.last(2))
	tr.drop(0, 2)
	return tr
}

func TestPrunedTrailIsWhole(t *testing.T) {
	early := standard(t)
	old := early.head("n1")
	early.say("n1", early.last(2))
	if r := early.verify(); !r.OK || r.Chains[0].Pruned != 0 {
		t.Errorf("before anything went: %+v", r)
	}
	early.drop(0, 2)
	if r := early.verify(old, early.head("n2")); !r.OK || r.Chains[0].Pruned+r.Chains[1].Pruned != 7 {
		t.Errorf("afterwards: %+v", r)
	}
	x, err := VerifyExport(bytes.NewReader(early.export()), Trust{Root: early.root}, nil, nil)
	if err != nil || !x.Report.OK {
		t.Errorf("its export: %+v, %v", x, err)
	}
	early.say("n1", early.last(2)) // and once more, with what was left of the beginning
	early.drop(2)
	if r := early.verify(old); !r.OK {
		t.Errorf("pruned twice: %+v", r.Faults)
	}
}

func TestPrunedTrailNamesTheFirstRecord(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(tr *trail)
		want Fault // What, Node, Seq
	}{
		{"one message more", func(tr *trail) { tr.drop(2) }, Fault{What: FaultDeleted, Node: "n1", Seq: 8}},
		{"the beginning of another node", func(tr *trail) { tr.drop(0) }, Fault{What: FaultDeleted, Node: "n2", Seq: 1}},
		{"the pruned record too", func(tr *trail) { tr.drop(len(tr.messages) - 1) }, Fault{What: FaultDeleted, Node: "n1", Seq: 1}},
		{"a pruned record without the key", func(tr *trail) {
			end := tr.last(2)
			tr.drop(len(tr.messages)-1, 2)
			tr.writers["n1"] = ResumeWriter("shop", tr.last(len(tr.messages)-2))
			tr.keys["n1"] = newRig(tr.t).keys["n1"]
			tr.say("n1", end)
		}, Fault{What: FaultForged, Node: "n1", Seq: 14}},
		{"by another node", func(tr *trail) {
			end := tr.last(0)
			tr.drop(0)
			tr.say("n1", end)
		}, Fault{What: FaultDeleted, Node: "n2", Seq: 1}},
		{"with another hash", func(tr *trail) {
			end := tr.last(2)
			end.Hash = strings.Repeat("ab", 32)
			tr.say("n1", end)
			tr.drop(2)
		}, Fault{What: FaultDeleted, Node: "n1", Seq: 1}},
		{"found broken by the node", func(tr *trail) {
			end := tr.last(2)
			p := Pruning{Chain: end.Chain, First: 8, Last: end.Seq, Hash: end.Hash, From: began, Until: began, Why: PrunedSize, Broken: "a message is no batch"}
			data, _, _, err := tr.writers["n1"].Batch([]Entry{p.Entry(began, "shop")}, began, tr.keys["n1"])
			if err != nil {
				tr.t.Fatal(err)
			}
			tr.messages = append(tr.messages, data)
			tr.drop(2)
		}, Fault{What: FaultDeleted, Node: "n1", Seq: 8}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tr := prunedTrail(t)
			tt.do(tr)
			r := tr.verify()
			if r.OK || !slices.ContainsFunc(r.Faults, func(f Fault) bool {
				return f.What == tt.want.What && f.Node == tt.want.Node && f.Seq == tt.want.Seq
			}) {
				t.Errorf("want %+v, got %+v", tt.want, r.Faults)
			}
		})
	}
}

// A whole chain of a node goes when a later one of it says so, and even the heads that
// were kept of it fit, when what said so has gone as well.
func TestPrunedChain(t *testing.T) {
	tr := newTrail(t)
	tr.write("n1", 3)
	head, end := tr.head("n1"), tr.last(0)
	w := NewWriter("shop", ChainID{"n1", "00000000000000ff"})
	data, _, next, err := w.Batch([]Entry{{Time: began, Kind: KindChain, Outcome: OutcomeOK, Ref: RefOf(end), Before: end.Hash}}, began, tr.keys["n1"])
	if err != nil {
		t.Fatal(err)
	}
	w.Advance(next)
	tr.writers["n1"], tr.messages = w, append(tr.messages, data)
	gone := func() *trail {
		return &trail{rig: tr.rig, t: t, writers: tr.writers, messages: slices.Clone(tr.messages[1:])}
	}
	if r := gone().verify(); r.OK || r.Faults[0].What != FaultDeleted || r.Faults[0].Chain != end.Chain || r.Faults[0].Last != 4 {
		t.Errorf("nobody said so: %+v", r)
	}
	tr.say("n1", end)
	if r := gone().verify(head); !r.OK {
		t.Errorf("said: %+v", r.Faults)
	}
	tr.write("n1", 1)
	tr.say("n1", tr.last(3))
	late := gone()
	late.drop(0, 1, 2)
	if r := late.verify(head); !r.OK {
		t.Errorf("said, and that gone: %+v", r.Faults)
	}
}

func TestPrunedExportMutations(t *testing.T) {
	tr := newTrail(t)
	tr.write("n1", 1)
	tr.write("n1", 1)
	tr.say("n1", tr.last(0))
	tr.drop(0)
	good := tr.export()
	if !accepts(tr, good) {
		t.Fatal("the good export is refused")
	}
	tried := 0
	try := func(what string, at int, b []byte) {
		tried++
		if !bytes.Equal(b, good) && accepts(tr, b) {
			t.Errorf("%s at %d of %d is accepted: %.80q", what, at, len(good), b[max(0, at-20):])
		}
	}
	from := bytes.Index(good, []byte("\n{\"v\":1")) // the header and keyring are tried elsewhere
	for i := from; i < len(good); i++ {
		b := bytes.Clone(good)
		b[i] ^= []byte{0x01, 0x20}[i%2]
		try("a changed byte", i, b)
		if i%3 == 0 {
			try("a byte left out", i, slices.Delete(bytes.Clone(good), i, i+1))
		}
	}
	t.Logf("%d mutations tried", tried)
}

func TestMalformedPrunedRecords(t *testing.T) {
	r := sample()
	p := Pruning{Chain: r.Chain, First: 1, Last: 1, Hash: strings.Repeat("ab", 32), From: began, Until: began, Why: PrunedAge}
	r.Entry = p.Entry(began, "shop")
	line, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if back, err := Decode(line); err != nil || *back != r {
		t.Fatalf("%+v, %v", back, err)
	}
	for name, change := range map[string]func(r *Record){
		"names itself":     func(r *Record) { r.Last, r.Count, r.Ref = 2, 2, r.Chain+"/2" },
		"ref and last":     func(r *Record) { r.Ref = r.Chain + "/2" },
		"a number with 0":  func(r *Record) { r.Ref = r.Chain + "/01" },
		"count":            func(r *Record) { r.Count = 2 },
		"first after last": func(r *Record) { r.First, r.Count = 3, 0 },
		"no hash":          func(r *Record) { r.Before = "" },
		"of itself":        func(r *Record) { r.Who = r.Node },
		"why":              func(r *Record) { r.Rule = "" },
		"outcome":          func(r *Record) { r.Outcome = OutcomeBegun },
		"no time":          func(r *Record) { r.Subject = "2026-03-01T12:00:00Z" },
		"another zone":     func(r *Record) { r.Subject = "2026-03-01T12:00:00+01:00/2026-03-01T12:00:00Z" },
		"time with zeros":  func(r *Record) { r.Subject = "2026-03-01T12:00:00.10Z/2026-03-01T12:00:00Z" },
	} {
		bad := r
		change(&bad)
		if _, err := bad.Encode(); !errors.Is(err, ErrRecord) {
			t.Errorf("%s: %v, want ErrRecord", name, err)
		}
	}
}

// sayOf appends a pruned record of n1 about n2.
func (tr *trail) sayOf(end Position, at time.Time) {
	tr.t.Helper()
	p := Pruning{Node: "n2", Chain: end.Chain, First: 1, Last: end.Seq, Hash: end.Hash, From: began, Until: began.Add(time.Minute), Why: PrunedAge}
	w := tr.writers["n1"]
	data, _, next, err := w.Batch([]Entry{p.Entry(at, "shop")}, began.Add(2*time.Minute), tr.keys["n1"])
	if err != nil {
		tr.t.Fatal(err)
	}
	w.Advance(next)
	tr.messages = append(tr.messages, data)
}

// TestPrunedForANodeThatIsGone: another node may say that the records of one that is gone
// went, and of no node that still wrote.
func TestPrunedForANodeThatIsGone(t *testing.T) {
	later := began.Add(GoneFor + time.Hour)
	for _, tt := range []struct {
		name string
		do   func(tr *trail)
		want string
	}{
		{"long after", func(tr *trail) { end := tr.last(3); tr.drop(1, 3); tr.sayOf(end, later) }, ""},
		{"while it wrote", func(tr *trail) { end := tr.last(3); tr.drop(1, 3); tr.sayOf(end, began.Add(time.Hour)) }, FaultDeleted},
		{"all of it, with the newest", func(tr *trail) { end := tr.last(7); tr.drop(1, 3, 5, 7); tr.sayOf(end, later) }, FaultTruncated},
		{"one message more", func(tr *trail) { end := tr.last(3); tr.drop(1, 3, 5); tr.sayOf(end, later) }, FaultDeleted},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tr := standard(t)
			head := tr.seal("n2", began)
			tt.do(tr)
			if r := tr.verify(); r.OK != (tt.want == "") {
				t.Errorf("without a head: %+v", r)
			}
			r := tr.verify(head)
			if tt.want == "" && !r.OK || tt.want != "" && (r.OK || r.Faults[0].What != tt.want || r.Faults[0].Node != "n2") {
				t.Errorf("want %q, got %+v", tt.want, r.Faults)
			}
		})
	}
}

package auditlog

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestWholeTrail(t *testing.T) {
	tr := standard(t)
	r := tr.verify(tr.head("n2"))
	if !r.OK || r.Records != 26 || r.Batches != 8 || len(r.Chains) != 2 || r.Heads != 1 {
		t.Fatalf("%+v", r)
	}
}

// lines splits a message into its records and its head.
func lines(m []byte) [][]byte {
	return bytes.SplitAfter(bytes.TrimSuffix(m, []byte("\n")), []byte("\n"))
}

// edit changes the text of one record and leaves everything else.
func edit(m []byte, record int) []byte {
	l := lines(m)
	l[record] = bytes.Replace(l[record], []byte("shop/checkout"), []byte("shop/somebody"), 1)
	return append(bytes.Join(l, nil), '\n')
}

// without takes one record out of a message.
func without(m []byte, record int) []byte {
	return append(bytes.Join(slices.Delete(lines(m), record, record+1), nil), '\n')
}

func TestVerifyNamesTheFirstRecord(t *testing.T) {
	tests := []struct {
		name string
		do   func(tr *trail)
		want Fault // What, Node, Seq, At
	}{
		{"edited in the middle of a message", func(tr *trail) { tr.messages[2] = edit(tr.messages[2], 1) }, Fault{What: FaultEdited, Node: "n1", Seq: 6, At: 3}},
		{"edited at the end of a message", func(tr *trail) { tr.messages[2] = edit(tr.messages[2], 2) }, Fault{What: FaultEdited, Node: "n1", Seq: 5, At: 3}},
		{"a record deleted", func(tr *trail) { tr.messages[2] = without(tr.messages[2], 1) }, Fault{What: FaultDeleted, Node: "n1", Seq: 6, At: 3}},
		{"the last record of a message deleted", func(tr *trail) { tr.messages[2] = without(tr.messages[2], 2) }, Fault{What: FaultDeleted, Node: "n1", Seq: 5, At: 3}},
		{"a message deleted", func(tr *trail) { tr.messages = slices.Delete(tr.messages, 2, 3) }, Fault{What: FaultDeleted, Node: "n1", Seq: 5, At: 4}},
		{"the first message deleted", func(tr *trail) { tr.messages = tr.messages[1:] }, Fault{What: FaultDeleted, Node: "n1", Seq: 1, At: 2}},
		{"a message twice", func(tr *trail) { tr.messages = slices.Insert(tr.messages, 3, tr.messages[2]) }, Fault{What: FaultInserted, Node: "n1", Seq: 5, At: 4}},
		{"two messages swapped", func(tr *trail) { tr.messages[2], tr.messages[4] = tr.messages[4], tr.messages[2] }, Fault{What: FaultReordered, Node: "n1", Seq: 5, At: 5}},
		{"bytes of no batch", func(tr *trail) { tr.messages[2] = []byte("{}\n") }, Fault{What: FaultMalformed, At: 3}},
		{"the end cut off", func(tr *trail) { tr.messages = tr.messages[:6] }, Fault{What: FaultTruncated, Node: "n1", Seq: 11}},
		{"everything of a node gone", func(tr *trail) {
			tr.messages = slices.DeleteFunc(tr.messages, func(m []byte) bool { return bytes.Contains(m, []byte(`"node":"n2"`)) })
		}, Fault{What: FaultTruncated, Node: "n2", Seq: 1}},
		{"signed with the key of another node", func(tr *trail) {
			h, _ := OpenHead(lines(tr.messages[2])[3], tr.ring)
			doc, _ := h.Sign(tr.keys["n2"])
			tr.messages[2] = append(append(bytes.Join(lines(tr.messages[2])[:3], nil), doc...), '\n')
		}, Fault{What: FaultForged, Node: "n1", Seq: 5, At: 3}},
		{"written again from a record on, without the key", func(tr *trail) {
			// A whole consistent chain, but with heads of a key that the ring does not have.
			other := newRig(tr.t)
			w := ResumeWriter("shop", Position{tr.writers["n1"].id, 4, HashOf(bytes.TrimSuffix(lines(tr.messages[0])[3], []byte("\n")))})
			data, _, _, err := w.Batch([]Entry{{Time: began, Kind: KindLogin, Outcome: OutcomeOK, Who: "shop/nobody"}}, began, other.keys["n1"])
			if err != nil {
				tr.t.Fatal(err)
			}
			tr.messages[2] = data
		}, Fault{What: FaultForged, Node: "n1", Seq: 5, At: 3}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tr := standard(t)
			head := tr.head("n1")
			tt.do(tr)
			r := tr.verify(head)
			if r.OK || len(r.Faults) == 0 {
				t.Fatal("nobody saw it")
			}
			found := slices.IndexFunc(r.Faults, func(f Fault) bool {
				return f.What == tt.want.What && f.Node == tt.want.Node && f.Seq == tt.want.Seq && (tt.want.At == 0 || f.At == tt.want.At)
			})
			if found < 0 {
				t.Fatalf("want %+v, got %+v", tt.want, r.Faults)
			}
			if s := r.Faults[found].String(); !strings.Contains(s, tt.want.What) {
				t.Errorf("text %q", s)
			}
		})
	}
}

// Without an outside head a cut at the end is an older trail: that is why heads are
// kept elsewhere.
func TestTruncationNeedsAnOutsideHead(t *testing.T) {
	tr := standard(t)
	head := tr.head("n1")
	tr.messages = tr.messages[:6]
	if r := tr.verify(); !r.OK {
		t.Errorf("without a head: %+v", r.Faults)
	}
	if r := tr.verify(head); r.OK {
		t.Error("with a head nobody saw it")
	}
}

// A node that signs two histories is shown up by two of its heads.
func TestTwoHistories(t *testing.T) {
	tr := standard(t)
	w := tr.writers["n1"]
	_, _, fork, err := w.Batch([]Entry{{Time: began, Kind: KindLogin, Outcome: OutcomeOK, Who: "shop/other"}}, began, tr.keys["n1"])
	if err != nil {
		t.Fatal(err)
	}
	h := Head{Tenant: "shop", Node: "n1", Time: began, Chains: []Position{fork}}
	kept, err := h.Sign(tr.keys["n1"])
	if err != nil {
		t.Fatal(err)
	}
	tr.write("n1", 1)
	r := tr.verify(kept)
	if r.OK || r.Faults[0].What != FaultEdited || r.Faults[0].Seq != fork.Seq {
		t.Errorf("%+v", r.Faults)
	}
	if r := tr.verify(kept, tr.head("n1")); r.OK || r.Faults[0].What != FaultForged {
		t.Errorf("two heads: %+v", r.Faults)
	}
}

// A node that lost its volume begins a new chain, which names the last head it knows.
func TestNewChainOfANode(t *testing.T) {
	begin := func(tr *trail, ref Position) {
		w := NewWriter("shop", ChainID{"n1", "00000000000000ff"})
		data, _, next, err := w.Batch([]Entry{{Time: began, Kind: KindChain, Outcome: OutcomeOK, Ref: RefOf(ref), Before: ref.Hash}}, began, tr.keys["n1"])
		if err != nil {
			t.Fatal(err)
		}
		w.Advance(next)
		tr.writers["n1"] = w
		tr.messages = append(tr.messages, data)
	}
	tr := standard(t)
	begin(tr, tr.writers["n1"].Position())
	if r := tr.verify(); !r.OK || len(r.Chains) != 3 || r.Chains[1].After != "0000000000000002/13" {
		t.Fatalf("%+v", r)
	}
	tr = standard(t)
	end := tr.writers["n1"].Position()
	tr.messages = tr.messages[:6] // the end of the old chain is gone
	begin(tr, end)
	if r := tr.verify(); r.OK || r.Faults[0].What != FaultEdited || r.Faults[0].Seq != 10 {
		t.Errorf("%+v", r.Faults)
	}
}

func TestHeadsOfKeysThatWereNotValid(t *testing.T) {
	tr := standard(t)
	for _, at := range []time.Time{began.Add(-2 * time.Hour), began.Add(25 * time.Hour)} {
		h := Head{Tenant: "shop", Node: "n1", Time: at, Chains: []Position{tr.writers["n1"].Position()}}
		doc, err := h.Sign(tr.keys["n1"])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := OpenHead(doc, tr.ring); !errors.Is(err, ErrHead) {
			t.Errorf("a head of %s: %v", at, err)
		}
	}
}

func TestExportRoundTrip(t *testing.T) {
	tr := standard(t)
	seen := 0
	x, err := VerifyExport(bytes.NewReader(tr.export()), Trust{Root: tr.root}, []Kept{{"n2", [][]byte{tr.head("n2")}}}, func(*Record) error { seen++; return nil })
	if err != nil || !x.Report.OK || x.Tenant != "shop" || seen != 26 || x.Report.Records != 26 || x.Closed.IsZero() {
		t.Fatalf("%+v %v, saw %d", x, err, seen)
	}
	if _, err := VerifyExport(bytes.NewReader(tr.export()), Trust{Root: newRig(t).root}, nil, nil); !errors.Is(err, ErrForeign) {
		t.Errorf("another root: %v", err)
	}
}

// accepts reports whether somebody would take an export for a good one.
func accepts(tr *trail, b []byte) bool {
	x, err := VerifyExport(bytes.NewReader(b), Trust{Root: tr.root}, nil, nil)
	return err == nil && x.Report.OK
}

// Every byte of an export changed, and taken out, and every cut.
func TestExportMutations(t *testing.T) {
	tr := newTrail(t)
	tr.write("n1", 2)
	tr.write("n2", 1)
	good := tr.export()
	if !accepts(tr, good) {
		t.Fatal("the good export is refused")
	}
	tried, accepted := 0, 0
	try := func(what string, at int, b []byte) {
		tried++
		if !bytes.Equal(b, good) && accepts(tr, b) {
			accepted++
			t.Errorf("%s at %d of %d is accepted: %.80q", what, at, len(good), b[max(0, at-20):])
		}
	}
	for i := range good {
		b := bytes.Clone(good)
		b[i] ^= []byte{0x01, 0x20}[i%2]
		try("a changed byte", i, b)
		try("a byte left out", i, slices.Delete(bytes.Clone(good), i, i+1))
		try("a cut", i, good[:i])
	}
	t.Logf("%d mutations tried, %d accepted", tried, accepted)
}

// Whole lines taken out, doubled and swapped: what a person would do with an editor.
func TestExportLines(t *testing.T) {
	tr := standard(t)
	good := bytes.SplitAfter(tr.export(), []byte("\n"))
	good = good[:len(good)-1]
	tried := 0
	for i := range good {
		for name, l := range map[string][][]byte{
			"left out": slices.Delete(slices.Clone(good), i, i+1),
			"doubled":  slices.Insert(slices.Clone(good), i, good[i]),
		} {
			tried++
			if accepts(tr, bytes.Join(l, nil)) {
				t.Errorf("line %d %s is accepted", i+1, name)
			}
		}
		for j := range i {
			l := slices.Clone(good)
			l[i], l[j] = l[j], l[i]
			tried++
			if accepts(tr, bytes.Join(l, nil)) {
				t.Errorf("lines %d and %d swapped are accepted", i+1, j+1)
			}
		}
	}
	t.Logf("%d mutations of lines tried", tried)
}

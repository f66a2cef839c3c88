package auditlog

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// late is a time at which no key of the rig is valid any more.
var late = began.Add(48 * time.Hour)

// writeAt appends a batch of one record whose head says another time.
func (tr *trail) writeAt(node string, at time.Time) {
	tr.t.Helper()
	w := tr.writers[node]
	data, _, next, err := w.Batch([]Entry{{Time: at, Kind: KindLogin, Outcome: OutcomeOK, Who: "shop/checkout"}}, at, tr.keys[node])
	if err != nil {
		tr.t.Fatal(err)
	}
	w.Advance(next)
	tr.messages = append(tr.messages, data)
}

// seal is what a node signs of its own chain.
func (tr *trail) seal(node string, at time.Time) []byte {
	tr.t.Helper()
	h := Head{Tenant: "shop", Node: node, Time: at, Seal: true, Chains: []Position{tr.writers[node].Position()}}
	doc, err := h.Sign(tr.keys[node])
	if err != nil {
		tr.t.Fatal(err)
	}
	return doc
}

// A head of a time at which the key was not valid proves nothing, and spoils nothing
// once a valid one covers it.
func TestHeadOfAnInvalidKeyIsCovered(t *testing.T) {
	for _, tt := range []struct {
		name  string
		do    func(tr *trail)
		heads func(tr *trail) [][]byte
		want  string // what the first fault is; "": whole
	}{
		{"by the next batch", func(tr *trail) { tr.write("n1", 1) }, nil, ""},
		{"by a batch after another such", func(tr *trail) { tr.writeAt("n1", late); tr.write("n1", 1) }, nil, ""},
		{"by the node's seal", nil, func(tr *trail) [][]byte { return [][]byte{tr.seal("n1", began)} }, ""},
		{"by nothing", nil, nil, FaultForged},
		{"by another such head", func(tr *trail) { tr.writeAt("n1", late) }, nil, FaultForged},
		{"by a seal of another node", nil, func(tr *trail) [][]byte {
			doc := tr.head("n2") // it names the chain of n1
			return [][]byte{doc}
		}, FaultForged},
		{"by a batch of another node", func(tr *trail) { tr.write("n2", 1) }, nil, FaultForged},
		{"by one that does not hold it", func(tr *trail) {
			tr.write("n1", 1)
			tr.write("n1", 1)
			tr.drop(len(tr.messages) - 2)
		}, nil, FaultForged},
		{"and edited before", func(tr *trail) {
			tr.write("n1", 1)
			last := len(tr.messages) - 2
			tr.messages[last] = edit(tr.messages[last], 0)
		}, nil, FaultEdited},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tr := standard(t)
			tr.writeAt("n1", late)
			if tt.do != nil {
				tt.do(tr)
			}
			var heads [][]byte
			if tt.heads != nil {
				heads = tt.heads(tr)
			}
			r := tr.verify(heads...)
			switch {
			case tt.want == "" && (!r.OK || len(r.Covered) != 1):
				t.Errorf("%+v", r)
			case tt.want == "":
				c := r.Covered[0]
				if c.Node != "n1" || c.Seq != 14 || c.Last < 14 || !c.Signed.Equal(late) || c.By < c.Last || c.Valid.After(late) || !strings.Contains(c.String(), "not valid") {
					t.Errorf("%+v", c)
				}
			case r.OK || !slices.ContainsFunc(r.Faults, func(f Fault) bool { return f.What == tt.want && f.Node == "n1" && f.Seq >= 13 }):
				t.Errorf("want %s, got %+v", tt.want, r)
			}
		})
	}
}

func TestKeyTimeIsTold(t *testing.T) {
	tr := standard(t)
	tr.writeAt("n1", late)
	b, err := ParseBatch(tr.messages[len(tr.messages)-1])
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Verify("shop", tr.ring); !errors.Is(err, ErrKeyTime) || !errors.Is(err, ErrBatch) {
		t.Errorf("batch: %v", err)
	}
	v := NewVerifier("shop", tr.ring)
	if err := v.Expect(tr.seal("n1", late)); !errors.Is(err, ErrKeyTime) || v.heads != 0 {
		t.Errorf("head: %v, %d taken", err, v.heads)
	}
	tr.messages[0] = bytes.Replace(tr.messages[0], []byte(`"n1"`), []byte(`"n2"`), 1)
	if _, err := ParseBatch(tr.messages[0]); err == nil {
		t.Error("a batch of two nodes")
	}
}

// TestWhatIsNotCovered: whole is not proved. Each node must have said itself how far its
// chain is, and heads that are given must be of this trail.
func TestWhatIsNotCovered(t *testing.T) {
	tr := standard(t)
	verify := func(kept []Kept, heads ...[]byte) *Report {
		t.Helper()
		v := NewVerifier("shop", tr.ring)
		for _, h := range heads {
			if err := v.Expect(h); err != nil {
				t.Fatal(err)
			}
		}
		if err := v.ExpectKept(kept); err != nil {
			t.Fatal(err)
		}
		for i, m := range tr.messages {
			v.Batch(uint64(i+1), m)
		}
		return v.Finish()
	}
	other := Head{Tenant: "mill", Node: "n1", Time: began, Seal: true}
	foreign, err := other.Sign(tr.keys["n1"])
	if err != nil {
		t.Fatal(err)
	}
	n1, n2 := tr.seal("n1", began), tr.seal("n2", began)
	for _, tt := range []struct {
		name  string
		kept  []Kept
		heads [][]byte
		open  []string // nodes
	}{
		{"nobody was asked", nil, nil, []string{"n1", "n2"}},
		{"one was asked", nil, [][]byte{n1}, []string{"n2"}},
		{"one speaks for both", nil, [][]byte{tr.head("n1")}, []string{"n2"}},
		{"both", nil, [][]byte{n1, n2}, nil},
		{"one of them kept", []Kept{{"f", [][]byte{foreign, n2}}}, [][]byte{n1}, nil},
		{"heads of another tenant", []Kept{{"f", [][]byte{foreign}}}, [][]byte{n1, n2}, []string{""}},
		{"a head of no valid key", []Kept{{"f", [][]byte{tr.seal("n1", late)}}}, [][]byte{n1, n2}, []string{""}},
		{"a file of two is of no use", []Kept{{"f", [][]byte{n1}}, {"g", [][]byte{foreign}}}, [][]byte{n2}, []string{""}},
	} {
		r := verify(tt.kept, tt.heads...)
		var open []string
		for _, o := range r.Open {
			open = append(open, o.Node)
		}
		if !r.OK || !slices.Equal(open, tt.open) || r.Proved() != (len(tt.open) == 0) {
			t.Errorf("%s: open %+v, ok %t", tt.name, r.Open, r.OK)
		}
	}
}

// A node that left can be taken as gone, one that is silent cannot.
func TestAcceptANodeThatIsGone(t *testing.T) {
	tr := standard(t)
	r := tr.verify(tr.seal("n1", began))
	if r.Accept("n2"); !r.Proved() || len(r.Accepted) != 1 || r.Accepted[0].Node != "n2" {
		t.Errorf("gone: %+v", r)
	}
	v := NewVerifier("shop", tr.ring)
	v.Open("n2", "no answer")
	r = v.Finish()
	if r.Accept("n2"); r.Proved() || len(r.Accepted) != 0 {
		t.Errorf("silent: %+v", r)
	}
}

// sealedExport is an export in which every node says how far it is.
func (tr *trail) sealedExport(seals ...[]byte) []byte {
	tr.t.Helper()
	var out bytes.Buffer
	x, err := NewExport(&out, "shop", tr.root, tr.doc)
	if err != nil {
		tr.t.Fatal(err)
	}
	for _, s := range seals {
		err = errors.Join(err, x.Seal(s))
	}
	for _, m := range tr.messages {
		err = errors.Join(err, x.Batch(m))
	}
	if err := errors.Join(err, x.Close(tr.head("n1"))); err != nil {
		tr.t.Fatal(err)
	}
	return out.Bytes()
}

func TestExportWithSealsOfTheNodes(t *testing.T) {
	tr := standard(t)
	open := func(b []byte) (*Export, []string) {
		t.Helper()
		x, err := VerifyExport(bytes.NewReader(b), Trust{Root: tr.root}, nil, nil)
		if err != nil || !x.Report.OK {
			t.Fatalf("%+v %v", x, err)
		}
		var nodes []string
		for _, o := range x.Report.Open {
			nodes = append(nodes, o.Node)
		}
		return x, nodes
	}
	if _, nodes := open(tr.sealedExport(tr.seal("n2", began))); len(nodes) != 0 {
		t.Errorf("open: %v", nodes)
	}
	if _, nodes := open(tr.sealedExport(tr.seal("n2", late))); !slices.Equal(nodes, []string{"n2"}) {
		t.Errorf("a seal of no valid key: open %v", nodes)
	}
	if _, nodes := open(tr.export()); !slices.Equal(nodes, []string{"n2"}) {
		t.Errorf("without it: open %v", nodes)
	}
	seal := tr.seal("n2", began)
	tr.messages = tr.messages[:7] // the last batch of n2 is cut off, and its writer says that it was there
	tr.writers["n2"] = ResumeWriter("shop", tr.last(5))
	x, err := VerifyExport(bytes.NewReader(tr.sealedExport(seal)), Trust{Root: tr.root}, nil, nil)
	if err != nil || x.Report.OK || x.Report.Faults[0].What != FaultTruncated || x.Report.Faults[0].Node != "n2" {
		t.Errorf("%+v %v", x, err)
	}
	for name, bad := range map[string][]byte{
		"of another root":   newTrail(t).rig.seal(t),
		"no seal":           lines(standard(t).messages[0])[4],
		"one after the end": nil,
	} {
		b := tr.sealedExport(bad)
		if bad == nil {
			b = append(tr.sealedExport(), append(bytes.Clone(seal), '\n')...)
		}
		if _, err := VerifyExport(bytes.NewReader(b), Trust{Root: tr.root}, nil, nil); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// seal is one of a node of this rig, of nothing.
func (r *rig) seal(t *testing.T) []byte {
	t.Helper()
	h := Head{Tenant: "shop", Node: "n1", Time: began, Seal: true}
	doc, err := h.Sign(r.keys["n1"])
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// TestHeadLaterThanTheExport: a head that was made after an export was closed says that the
// export is old, and convicts nobody; one that was made before says that it was cut off.
func TestHeadLaterThanTheExport(t *testing.T) {
	closed := began.Add(time.Minute) // tr.head
	for _, tt := range []struct {
		name   string
		heads  []time.Duration // when heads were made of what was written after the export, to closed
		seal   bool            // the export has the same from the node
		old    bool            // else it is cut off
		append int             // records of n1 that follow the export
	}{
		{"a minute later", []time.Duration{time.Minute}, false, true, 1},
		{"twice", []time.Duration{time.Minute, time.Hour}, false, true, 1},
		{"in the moment of the closing", []time.Duration{0}, false, false, 1},
		{"before it", []time.Duration{-time.Second}, false, false, 1},
		{"one before and one after it", []time.Duration{time.Minute, -time.Second}, false, false, 1},
		{"one after and one before it", []time.Duration{-time.Second, time.Minute}, false, false, 1},
		{"later, and in the export too", []time.Duration{time.Minute}, true, false, 1},
		{"later, of nothing new", []time.Duration{time.Minute}, false, false, 0},
	} {
		tr := standard(t)
		whole := tr.sealedExport(tr.seal("n2", began))
		if tt.append > 0 {
			tr.write("n1", tt.append)
		}
		kept := Kept{Name: "kept"}
		for _, after := range tt.heads {
			h := Head{Tenant: "shop", Node: "n1", Time: closed.Add(after), Seal: true, Chains: []Position{tr.writers["n1"].Position()}}
			doc, err := h.Sign(tr.keys["n1"])
			if err != nil {
				t.Fatal(err)
			}
			kept.Docs = append(kept.Docs, doc)
		}
		if tt.seal {
			lines := bytes.SplitAfter(whole, []byte("\n"))
			whole = bytes.Join(append(lines[:2:2], append([][]byte{kept.Docs[0], []byte("\n")}, lines[2:]...)...), nil)
		}
		x, err := VerifyExport(bytes.NewReader(whole), Trust{Root: tr.root}, []Kept{kept}, nil)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		r := x.Report
		switch {
		case tt.append == 0:
			if !r.Proved() {
				t.Errorf("%s: %+v %+v", tt.name, r.Faults, r.Open)
			}
		case tt.old:
			if !r.OK || r.Proved() || !strings.Contains(r.Open[0].Why, "older than the head") {
				t.Errorf("%s: %+v %+v", tt.name, r.Faults, r.Open)
			}
		case r.OK || r.Faults[0].What != FaultTruncated:
			t.Errorf("%s: %+v %+v", tt.name, r.Faults, r.Open)
		}
	}
}

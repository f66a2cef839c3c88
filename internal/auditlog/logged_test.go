package auditlog

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/tlog"
)

// headLog is a log of heads as the broker keeps it.
type headLog struct {
	*rig
	t     testing.TB
	edge  tlog.Edge
	tiles map[string][]byte
	said  []Logged
}

const headsBlock = "NATS/1.0\r\nNats-Expected-Stream: HEADS\r\n\r\n"

func newHeadLog(t testing.TB, r *rig) *headLog {
	return &headLog{rig: r, t: t, tiles: map[string][]byte{}}
}

// add stores a head on a subject.
func (l *headLog) add(subject string, doc []byte) {
	l.t.Helper()
	m := Logged{Sequence: uint64(len(l.said) + 1), Stored: began.Add(time.Duration(len(l.said)) * time.Second).UnixNano(), Subject: subject, Block: []byte(headsBlock), Head: string(doc)}
	var h tlog.Hasher
	leaf := h.Stored(m.Sequence, m.Stored, m.Subject, m.Block, doc)
	if err := l.edge.Append(leaf.Hash()); err != nil {
		l.t.Fatal(err)
	}
	l.said = append(l.said, m)
}

// publish stores the head of a node's own chain.
func (l *headLog) publish(node string, at Position) {
	l.t.Helper()
	doc, err := (&Head{Tenant: "shop", Node: node, Time: began.Add(time.Minute), Chains: []Position{at}}).Sign(l.keys[node])
	if err != nil {
		l.t.Fatal(err)
	}
	l.add(HeadSubject("shop", node), doc)
}

// prove returns the lines of the heads with the sequences, under a checkpoint that s signs
// at a time.
func (l *headLog) prove(s *signing.Signer, at time.Time, stream string, seqs ...uint64) (out []string) {
	l.t.Helper()
	cp := tlog.Checkpoint{
		Origin: tlog.Origin{Cluster: "eu", Tenant: wire.BrokerAccount, Stream: stream, Start: began}, Size: l.edge.Size(), Root: l.edge.Root(),
		First: 1, Time: at, Created: began,
	}
	note, err := cp.Sign(s)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, tile := range l.edge.Take() {
		l.tiles[fmt.Sprint(tile.Level, "/", tile.Index)] = tile.Bytes()
	}
	r := tlog.NewHashReader(cp.Size, cp.Root, func(level int, index int64) ([]byte, error) { return l.tiles[fmt.Sprint(level, "/", index)], nil })
	for _, seq := range seqs {
		m := l.said[seq-1]
		m.Checkpoint = string(note)
		hashes, err := tlog.RangeHashes(cp.Size, int64(seq-1), int64(seq), r)
		if err != nil {
			l.t.Fatal(err)
		}
		for _, h := range hashes {
			m.Hashes = append(m.Hashes, h[:])
		}
		line, err := m.Encode()
		if err != nil {
			l.t.Fatal(err)
		}
		out = append(out, string(line))
	}
	return out
}

// logged is a trail of two nodes whose ends the log has, among heads of another tenant,
// and the lines that say so.
func logged(t testing.TB) (*trail, *headLog, []string) {
	tr := standard(t)
	l := newHeadLog(t, tr.rig)
	l.add(HeadSubject("mill", "n1"), []byte("a head of another tenant"))
	l.publish("n1", tr.writers["n1"].Position())
	l.add(HeadSubject("mill", "n2"), []byte("a head of another tenant"))
	l.publish("n2", tr.writers["n2"].Position())
	l.add(HeadSubject("mill", "n1"), []byte("a newer head of another tenant"))
	return tr, l, l.prove(tr.keys["n2"], began.Add(time.Minute), wire.StreamHeads, 2, 4)
}

func (tr *trail) against(lines ...string) *Report {
	tr.t.Helper()
	v := NewVerifier("shop", tr.ring)
	for _, line := range lines {
		if err := v.ExpectLogged([]byte(line)); err != nil {
			tr.t.Fatal(err)
		}
	}
	for i, m := range tr.messages {
		v.Batch(uint64(i+1), m)
	}
	return v.Finish()
}

// TestLoggedHeadCoversChain: the verdict says up to which record a checkpoint covers each
// chain, and a logged head does not speak for the end of one.
func TestLoggedHeadCoversChain(t *testing.T) {
	tr, l, lines := logged(t)
	end := tr.writers["n1"].Position()
	tr.write("n1", 2)
	r := tr.against(lines...)
	if !r.OK || r.Proved() || r.Heads != 2 || len(r.Chains) != 2 {
		t.Fatalf("%+v", r)
	}
	for _, c := range r.Chains {
		want := LoggedUpTo{Seq: end.Seq, Head: 2, Stored: time.Unix(0, l.said[1].Stored).UTC(), Log: "signet/log/v1/eu/SIGNET/HEADS/20260301T120000Z", Size: 5, Time: began.Add(time.Minute)}
		if c.Node == "n2" {
			want.Seq, want.Head, want.Stored = c.Seq, 4, time.Unix(0, l.said[3].Stored).UTC()
		}
		if c.Logged == nil || *c.Logged != want {
			t.Errorf("%s: %+v, want %+v", c.Node, c.Logged, want)
		}
	}
	if r := tr.verify(); r.Chains[0].Logged != nil || r.Chains[1].Logged != nil {
		t.Errorf("without the log: %+v", r.Chains)
	}
}

// TestLoggedHeadNamesWhatWasCut: what lies before a head that the log has cannot be cut,
// changed or deleted unseen, whoever forgot it.
func TestLoggedHeadNamesWhatWasCut(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(tr *trail)
		want   string
	}{
		"cut": {func(tr *trail) { tr.messages = tr.messages[:6] }, FaultTruncated},
		"all": {func(tr *trail) { tr.messages = nil }, FaultTruncated},
		"written anew": {func(tr *trail) { // with the key of the node, as one who has its disk
			w := ResumeWriter("shop", Position{ChainID{"n1", tr.writers["n1"].id.Chain}, 0, NoHash})
			entries := []Entry{{Time: began, Kind: KindChain, Outcome: OutcomeOK}}
			for range tr.writers["n1"].Position().Seq {
				entries = append(entries, Entry{Time: began, Kind: KindLogin, Outcome: OutcomeOK, Who: "shop/other"})
			}
			data, _, _, err := w.Batch(entries, began, tr.keys["n1"])
			if err != nil {
				tr.t.Fatal(err)
			}
			tr.messages = [][]byte{data}
		}, FaultEdited},
	} {
		t.Run(name, func(t *testing.T) {
			tr, _, lines := logged(t)
			tt.change(tr)
			r := tr.against(lines...)
			if r.OK {
				t.Fatal("nobody saw it")
			}
			for _, f := range r.Faults {
				if f.What == tt.want && f.Node == "n1" && strings.Contains(f.Detail, "sequence 2 of HEADS, and the log has it") {
					return
				}
			}
			t.Errorf("want %s: %+v", tt.want, r.Faults)
		})
	}
}

// TestLoggedThroughLaterChain: a later chain of the node, which the log covers, covers the
// one that it goes on from.
func TestLoggedThroughLaterChain(t *testing.T) {
	tr := standard(t)
	old := tr.writers["n1"].Position()
	w := NewWriter("shop", ChainID{"n1", "00000000000000ff"})
	data, _, next, err := w.Batch([]Entry{{Time: began.Add(time.Hour), Kind: KindChain, Outcome: OutcomeOK, Ref: RefOf(old), Before: old.Hash}}, began.Add(time.Hour), tr.keys["n1"])
	if err != nil {
		t.Fatal(err)
	}
	tr.messages = append(tr.messages, data)
	l := newHeadLog(t, tr.rig)
	l.publish("n1", next)
	r := tr.against(l.prove(tr.keys["n1"], began.Add(time.Minute), wire.StreamHeads, 1)...)
	if !r.OK || len(r.Chains) != 3 {
		t.Fatalf("%+v", r)
	}
	for _, c := range r.Chains {
		switch {
		case c.ChainID == old.ChainID && (c.Logged == nil || c.Logged.Seq != old.Seq || c.Logged.Through != next.Chain):
			t.Errorf("the older chain: %+v", c.Logged)
		case c.Node == "n2" && c.Logged != nil:
			t.Errorf("the chain of another node: %+v", c.Logged)
		}
	}
}

// TestLoggedHeadsThatAreNone: each is refused for what it is.
func TestLoggedHeadsThatAreNone(t *testing.T) {
	tr, l, lines := logged(t)
	at := tr.writers["n1"].Position()
	sign := func(h Head) []byte {
		doc, err := h.Sign(tr.keys[h.Node])
		if err != nil {
			t.Fatal(err)
		}
		return doc
	}
	l.add(HeadSubject("shop", "n2"), sign(Head{Tenant: "shop", Node: "n2", Time: began, Chains: []Position{at}}))             // 6
	l.add(HeadSubject("shop", "n2"), sign(Head{Tenant: "shop", Node: "n1", Time: began, Chains: []Position{at}}))             // 7
	l.add(HeadSubject("shop", "n1"), sign(Head{Tenant: "mill", Node: "n1", Time: began, Chains: []Position{at}}))             // 8
	l.add(HeadSubject("shop", "n1"), sign(Head{Tenant: "shop", Node: "n1", Time: began, Seal: true, Chains: []Position{at}})) // 9
	prove := func(seq uint64) string {
		return l.prove(tr.keys["n1"], began.Add(time.Minute), wire.StreamHeads, seq)[0]
	}
	foreign := l.prove(tr.keys["n1"], began.Add(time.Minute), "ORDERS", 2)[0]
	for name, line := range map[string]string{
		"another node's chain":     prove(6),
		"on another node":          prove(7),
		"another tenant":           prove(8),
		"a seal":                   prove(9),
		"no head":                  prove(1),
		"another log":              foreign,
		"the path of another":      strings.Replace(lines[0], `"logged":2`, `"logged":4`, 1),
		"outside of the log":       strings.Replace(lines[0], `"logged":2`, `"logged":99`, 1),
		"another time":             strings.Replace(lines[0], `"storedNs":`, `"storedNs":1`, 1),
		"hashes that are not read": strings.Replace(lines[0], `"hashes":[`, `"hashes":["`+strings.Repeat("A", 43)+`=",`, 1),
		"null hashes":              `{"logged":1,"storedNs":1,"subject":"s","headers_base64":"","head":"h","hashes":null,"checkpoint":"c"}`,
		"a short hash":             `{"logged":1,"storedNs":1,"subject":"s","headers_base64":"","head":"h","hashes":["AA=="],"checkpoint":"c"}`,
		"unknown member":           strings.Replace(lines[0], `"storedNs":`, `"x":1,"storedNs":`, 1),
		"space":                    strings.Replace(lines[0], `"storedNs":`, `"storedNs": `, 1),
		"too long":                 strings.Replace(lines[0], `"headers_base64":"`, `"headers_base64":"`+strings.Repeat("AAAA", maxLoggedBytes/4), 1),
	} {
		if err := NewVerifier("shop", tr.ring).ExpectLogged([]byte(line)); !errors.Is(err, ErrLogged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestLoggedUnderAKeyThatWasNotValid: a head, or a checkpoint, of a time at which its key
// was not valid proves nothing, and the trail is not proved.
func TestLoggedUnderAKeyThatWasNotValid(t *testing.T) {
	tr, l, _ := logged(t)
	l.add(HeadSubject("shop", "n1"), func() []byte {
		doc, err := (&Head{Tenant: "shop", Node: "n1", Time: began.Add(48 * time.Hour), Chains: []Position{tr.writers["n1"].Position()}}).Sign(tr.keys["n1"])
		if err != nil {
			t.Fatal(err)
		}
		return doc
	}())
	for name, line := range map[string]string{
		"head":       l.prove(tr.keys["n1"], began.Add(time.Minute), wire.StreamHeads, 6)[0],
		"checkpoint": l.prove(tr.keys["n1"], began.Add(48*time.Hour), wire.StreamHeads, 2)[0],
	} {
		r := tr.against(line)
		if r.Heads != 0 || r.Proved() || !r.OK || len(r.Open) == 0 || !strings.Contains(r.Open[0].Why, "proves nothing") {
			t.Errorf("%s: %+v", name, r)
		}
		for _, c := range r.Chains {
			if c.Logged != nil {
				t.Errorf("%s: covered: %+v", name, c.Logged)
			}
		}
	}
}

// TestLogFaultIsNamed: what is wrong with the log itself makes the trail not whole.
func TestLogFaultIsNamed(t *testing.T) {
	tr := standard(t)
	v := NewVerifier("shop", tr.ring)
	v.LogFault("sequence 3 of HEADS was dropped")
	for i, m := range tr.messages {
		v.Batch(uint64(i+1), m)
	}
	r := v.Finish()
	if r.OK || r.Err() == nil || r.Err().Error() != "log: the log of the heads: sequence 3 of HEADS was dropped" {
		t.Errorf("%v", r.Err())
	}
}

func loggedExport(tr *trail, lines []string) []byte {
	tr.t.Helper()
	var out bytes.Buffer
	x, err := NewExport(&out, "shop", tr.root, tr.doc, lines...)
	if err != nil {
		tr.t.Fatal(err)
	}
	for _, m := range tr.messages {
		if err := x.Batch(m); err != nil {
			tr.t.Fatal(err)
		}
	}
	if err := x.Close(tr.head("n1")); err != nil {
		tr.t.Fatal(err)
	}
	return out.Bytes()
}

// TestLoggedExport: an auditor checks offline what a log covers; of an export without
// logged heads, which is of version 1, none does.
func TestLoggedExport(t *testing.T) {
	tr, _, lines := logged(t)
	for name, given := range map[string][]string{"with the log": lines, "without": nil} {
		doc := loggedExport(tr, given)
		if v2 := bytes.HasPrefix(doc, []byte(`{"audit":"signet-export","v":2,`)); v2 != (given != nil) {
			t.Errorf("%s: %.40s", name, doc)
		}
		x, err := VerifyExport(bytes.NewReader(doc), Trust{Root: tr.root}, nil, nil)
		if err != nil || !x.Report.OK {
			t.Fatalf("%s: %v, %+v", name, err, x)
		}
		for _, c := range x.Report.Chains {
			if (c.Logged != nil) != (given != nil) {
				t.Errorf("%s: %+v", name, c.Logged)
			}
		}
	}
	line := bytes.SplitAfter(loggedExport(tr, lines), []byte("\n"))
	join := func(lines ...[]byte) []byte { return bytes.Join(lines, nil) }
	for name, doc := range map[string][]byte{
		"a logged head behind a batch": join(line[0], line[1], line[2], join(line[4:8]...), line[3], join(line[8:]...)),
		"in version 1":                 bytes.Replace(join(line...), []byte(`"v":2`), []byte(`"v":1`), 1),
		"taken out":                    join(line[0], line[1], join(line[4:]...)),
		"version 3":                    bytes.Replace(join(line...), []byte(`"v":2`), []byte(`"v":3`), 1),
		"too many":                     join(line[0], line[1], bytes.Repeat(line[2], maxLogged+1), join(line[3:]...)),
	} {
		if x, err := VerifyExport(bytes.NewReader(doc), Trust{Root: tr.root}, nil, nil); err == nil && x.Report.OK {
			t.Errorf("%s is accepted", name)
		}
	}
}

// TestLoggedExportMutations changes every byte of the logged heads of an export, in each
// bit, takes it out and doubles it: none is accepted.
func TestLoggedExportMutations(t *testing.T) {
	tr, _, lines := logged(t)
	accepted := 0
	for _, line := range lines {
		try := func(at int, changed string) {
			if err := NewVerifier("shop", tr.ring).ExpectLogged([]byte(changed)); err == nil {
				accepted++
				t.Errorf("accepted with byte %d changed: %s", at, changed)
			}
		}
		for i := range len(line) {
			for bit := range 8 {
				try(i, line[:i]+string(line[i]^(1<<bit))+line[i+1:])
			}
			try(i, line[:i]+line[i+1:])
			try(i, line[:i+1]+line[i:])
		}
	}
	doc := loggedExport(tr, lines)
	from, to := bytes.Index(doc, []byte(loggedMark)), bytes.LastIndex(doc, []byte(loggedMark))
	to += bytes.IndexByte(doc[to:], '\n')
	for i := from; i <= to; i++ {
		changed := bytes.Clone(doc)
		changed[i] ^= 1
		if x, err := VerifyExport(bytes.NewReader(changed), Trust{Root: tr.root}, nil, nil); err == nil && x.Report.OK {
			accepted++
			t.Errorf("an export is accepted with byte %d changed", i)
		}
	}
	t.Logf("%d bytes of logged heads, %d accepted", len(lines[0])+len(lines[1]), accepted)
}

func FuzzParseLogged(f *testing.F) {
	tr, _, lines := logged(f)
	for _, line := range lines {
		f.Add([]byte(line))
		f.Add([]byte(line[:len(line)/2]))
	}
	f.Add([]byte(`{"logged":1,"storedNs":0,"subject":"","headers_base64":"","head":"","hashes":[],"checkpoint":""}`))
	ring := tr.ring
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _, _ = HeadPosition(b)
		l, err := ParseLogged(b)
		if err != nil {
			return
		}
		if again, err := l.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("read %q, wrote %q, %v", b, again, err)
		}
		if _, _, err := l.Verify("shop", ring, time.Now()); err == nil && string(b) != lines[0] && string(b) != lines[1] {
			t.Errorf("accepted %q", b)
		}
	})
}

package tlog

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/signetbus/signet/signing/keyring"
)

var update = flag.Bool("update", false, "write docs/spec/vectors/log.json")

const vectorFile = "../../docs/spec/vectors/log.json"

// The vector file. An implementation is right when it makes each leaf, root and list of
// hashes, and gives the result of each checkpoint, consistency proof and proof.
type (
	vectors struct {
		Format      string              `json:"format"`
		Note        string              `json:"note"`
		Root        string              `json:"root"`
		Keyring     string              `json:"keyring"`
		Leaves      []vectorLeaf        `json:"leaves"`
		Trees       []vectorTree        `json:"trees"`
		Checkpoints []vectorCheckpoint  `json:"checkpoints"`
		Consistency []vectorConsistency `json:"consistency"`
		Proofs      []vectorProof       `json:"proofs"`
	}
	vectorLeaf struct {
		Sequence    uint64 `json:"sequence"`
		StoredNs    int64  `json:"storedNs"`
		NATSSubject string `json:"natsSubject"`
		Headers     []byte `json:"headers_base64"`
		Data        []byte `json:"data_base64"`
		Kind        string `json:"kind"`
		Record      string `json:"record"`
		Hash        Hash   `json:"hash"`
	}
	vectorTree struct {
		Size   int64  `json:"size"` // leaf i is SHA-256(0x09 and i as eight bytes)
		Root   Hash   `json:"root"`
		From   int64  `json:"from"`
		To     int64  `json:"to"`
		Hashes []Hash `json:"hashes"`
	}
	vectorCheckpoint struct {
		Name   string `json:"name"`
		Note   string `json:"note"`
		Result string `json:"result"`
	}
	vectorConsistency struct {
		Name   string `json:"name"`
		Old    string `json:"old"`
		New    string `json:"new"`
		Proof  []Hash `json:"proof"`
		Result string `json:"result"`
	}
	vectorProof struct {
		Name   string `json:"name"`
		Proof  string `json:"proof"`
		Result string `json:"result"`
	}
)

func resultOf(err error) string {
	for _, r := range []struct {
		err  error
		name string
	}{
		{ErrMalformed, "malformed"},
		{ErrUnknownKey, "unknownKey"},
		{ErrKeyNotValid, "keyNotValid"},
		{ErrKeyRevoked, "keyRevoked"},
		{ErrBadSignature, "badSignature"},
		{ErrForked, "forked"},
		{ErrProof, "notInLog"},
		{ErrSize, "outsideOfLog"},
		{keyring.ErrBadSignature, "keyring"},
		{keyring.ErrMalformed, "keyring"},
	} {
		if errors.Is(err, r.err) {
			return r.name
		}
	}
	if err == nil {
		return "ok"
	}
	return err.Error()
}

func TestVectors(t *testing.T) {
	made := makeVectors(t)
	if *update {
		if err := os.WriteFile(vectorFile, made, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := os.ReadFile(vectorFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(raw, made) {
		t.Error("the vector file is stale: run go test ./signing/tlog -run TestVectors -update, and review the difference: it is a change of format")
	}
	var file vectors
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&file); err != nil {
		t.Fatal(err)
	}
	seen := checkVectors(t, &file)
	for _, want := range []string{"ok", "malformed", "unknownKey", "keyNotValid", "keyRevoked", "badSignature", "forked", "notInLog", "outsideOfLog", "keyring"} {
		if seen[want] == 0 {
			t.Errorf("no case has the result %s", want)
		}
	}
	t.Logf("results: %v", seen)
}

func checkVectors(t *testing.T, file *vectors) map[string]int {
	t.Helper()
	var h Hasher
	for _, l := range file.Leaves {
		got := h.Stored(l.Sequence, l.StoredNs, l.NATSSubject, l.Headers, l.Data)
		if l.Kind == Absent.String() {
			got = Leaf{}
		}
		if got.Kind.String() != l.Kind || hex.EncodeToString(got.AppendBinary(nil)) != l.Record || got.Hash() != l.Hash {
			t.Errorf("leaf of sequence %d: %s", l.Sequence, l.Kind)
		}
	}
	for _, tree := range file.Trees {
		leaves := make([]Hash, 0, tree.To-tree.From)
		for i := tree.From; i < tree.To; i++ {
			leaves = append(leaves, leafOf(int(i)))
		}
		if root, err := RangeRoot(tree.Size, tree.From, leaves, tree.Hashes); err != nil || root != tree.Root {
			t.Errorf("tree of %d leaves: %v", tree.Size, err)
		}
	}
	ring, _, _ := testRing(t)
	seen := map[string]int{}
	check := func(name, want string, err error) {
		seen[want]++
		if resultOf(err) != want {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
	for _, c := range file.Checkpoints {
		n, err := ParseNote([]byte(c.Note))
		if err == nil {
			_, err = n.Verify(ring)
		}
		check(c.Name, c.Result, err)
	}
	for _, c := range file.Consistency {
		older, err := ParseNote([]byte(c.Old))
		if err != nil {
			t.Fatal(err)
		}
		newer, err := ParseNote([]byte(c.New))
		if err != nil {
			t.Fatal(err)
		}
		check(c.Name, c.Result, CheckConsistency(&older.Checkpoint, &newer.Checkpoint, c.Proof))
	}
	for _, c := range file.Proofs {
		p, err := ParseProof([]byte(c.Proof))
		if err == nil {
			_, err = p.Verify(file.Root, nil)
		}
		check(c.Name, c.Result, err)
	}
	return seen
}

func makeVectors(t *testing.T) []byte {
	t.Helper()
	_, doc, root := testRing(t)
	file := vectors{
		Format: "signet-log-vectors/1",
		Note: "Written by go test ./signing/tlog -run TestVectors -update. The keys are for tests only. Leaf i of each of trees is the hash SHA-256(0x09 + i), " +
			"i in eight bytes, big endian; hashes are of section 4 of docs/spec/log.md for the leaves from up to, not including, to.",
		Root: root, Keyring: string(doc),
	}
	l, all := mixedLog(t)
	file.leaves(all)
	file.trees(t)
	file.checkpoints(t)
	file.consistency(t, l)
	file.proofs(t, l, all)
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	if err := enc.Encode(&file); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func (v *vectors) leaves(all map[uint64]stored) {
	var h Hasher
	for _, seq := range []uint64{17, 20, 22} {
		m := all[seq]
		leaf := Leaf{}
		if m.seq > 0 {
			leaf = h.Stored(m.seq, m.at, m.subject, m.block, m.data)
		}
		v.Leaves = append(v.Leaves, vectorLeaf{
			Sequence: seq, StoredNs: m.at, NATSSubject: m.subject, Headers: m.block, Data: m.data, Kind: leaf.Kind.String(),
			Record: hex.EncodeToString(leaf.AppendBinary(nil)), Hash: leaf.Hash(),
		})
	}
}

func (v *vectors) trees(t *testing.T) {
	for _, c := range [][3]int64{{1, 0, 1}, {2, 1, 2}, {7, 2, 5}, {8, 0, 8}, {300, 255, 258}, {1000, 999, 1000}} {
		var l testLog
		for i := range c[0] {
			l.append(t, leafOf(int(i)))
		}
		l.save()
		hashes, err := RangeHashes(c[0], c[1], c[2], NewHashReader(c[0], l.edge.Root(), l.read))
		if err != nil {
			t.Fatal(err)
		}
		v.Trees = append(v.Trees, vectorTree{Size: c[0], Root: l.edge.Root(), From: c[1], To: c[2], Hashes: hashes})
	}
}

func (v *vectors) checkpoints(t *testing.T) {
	c := testCheckpoint()
	add := func(name string, fill byte, change func(string) string, result string) {
		raw, err := c.Sign(testSigner(t, fill))
		if err != nil {
			t.Fatal(err)
		}
		note := string(raw)
		if change != nil {
			note = change(note)
		}
		v.Checkpoints = append(v.Checkpoints, vectorCheckpoint{Name: name, Note: note, Result: result})
	}
	replace := func(old, next string) func(string) string {
		return func(s string) string { return string(bytes.Replace([]byte(s), []byte(old), []byte(next), 1)) }
	}
	add("signed by a broker", fillBroker, nil, "ok")
	add("signed by a key that had expired", fillExpired, nil, "keyNotValid")
	add("signed by a key that is not in the keyring", fillUnknown, nil, "unknownKey")
	add("signed by a key that was revoked", fillRevoked, nil, "keyNotValid")
	add("signed by a key that is not valid yet", fillEarly, nil, "keyNotValid")
	add("another size", fillBroker, replace("\n3\n", "\n4\n"), "badSignature")
	add("another time", fillBroker, replace("time 2026-11-22T12", "time 2026-11-22T13"), "badSignature")
	add("the note of an attestation tree", fillBroker, func(string) string {
		return "signet/merkle-ed25519/v1\n2\n" + leafOf(1).String() + "\n"
	}, "malformed")
	add("size with a sign", fillBroker, replace("\n3\n", "\n+3\n"), "malformed")
	add("size with a leading zero", fillBroker, replace("\n3\n", "\n03\n"), "malformed")
	add("a log of a version to come", fillBroker, func(s string) string { return strings.ReplaceAll(s, "signet/log/v1/", "signet/log/v2/") }, "malformed")
	add("signed for another log", fillBroker, replace("— signet/log/v1/eu/shop/ORDERS/", "— signet/log/v1/eu/shop/ORDERS2/"), "malformed")
	add("no signature", fillBroker, func(s string) string { return s[:bytes.Index([]byte(s), []byte("\n\n"))+2] }, "malformed")
	add("a second signature", fillBroker, func(s string) string { return s + s[bytes.Index([]byte(s), []byte("\n\n"))+2:] }, "malformed")
	add("bytes after the end", fillBroker, func(s string) string { return s + "\n" }, "malformed")
}

func (v *vectors) consistency(t *testing.T, l *testLog) {
	at := func(size int64) *Checkpoint {
		c := l.cp
		c.Size, c.Root = size, naiveRoot(l.leaves[:size])
		return &c
	}
	add := func(name string, older, newer *Checkpoint, proof []Hash, result string) {
		v.Consistency = append(v.Consistency, vectorConsistency{Name: name, Old: string(mustSign(t, older)), New: string(mustSign(t, newer)), Proof: proof, Result: result})
	}
	proof, err := ProveConsistency(100, 300, NewHashReader(300, l.cp.Root, l.read))
	if err != nil {
		t.Fatal(err)
	}
	add("grown", at(100), at(300), proof, "ok")
	add("the same", at(300), at(300), []Hash{}, "ok")
	add("from the empty log", at(0), at(300), []Hash{}, "ok")
	add("shrunk", at(300), at(100), proof, "forked")
	add("no proof", at(100), at(300), []Hash{}, "forked")
	other := at(300)
	other.Root[31] ^= 1
	add("equal size, different roots", at(300), other, []Hash{}, "forked")
	other = at(100)
	other.Root[0] ^= 1
	add("another history", other, at(300), proof, "forked")
}

func (v *vectors) proofs(t *testing.T, l *testLog, all map[uint64]stored) {
	add := func(name string, from, to uint64, change func(p *Proof), result string) {
		p := proofOf(t, l, all, from, to)
		if change != nil {
			change(p)
		}
		v.Proofs = append(v.Proofs, vectorProof{Name: name, Proof: string(encode(t, p)), Result: result})
	}
	add("one event", 18, 18, nil, "ok")
	add("an absent sequence", 20, 20, nil, "ok")
	add("a range with an event, a message and an absent sequence", 19, 22, nil, "ok")
	add("another event at the sequence", 18, 18, func(p *Proof) { p.Leaves = proofOf(t, l, all, 19, 19).Leaves }, "notInLog")
	add("called absent", 18, 18, func(p *Proof) { p.Leaves[0] = ProofLeaf{} }, "notInLog")
	add("left out of a range", 19, 22, func(p *Proof) { p.Leaves = append(p.Leaves[:1], p.Leaves[2:]...) }, "notInLog")
	add("one hash fewer", 18, 18, func(p *Proof) { p.Hashes = p.Hashes[1:] }, "notInLog")
	add("one hash more", 18, 18, func(p *Proof) { p.Hashes = append(p.Hashes, Hash{}) }, "notInLog")
	add("another time of storing", 18, 18, func(p *Proof) { p.Leaves[0].Stored++ }, "notInLog")
	add("another subject", 18, 18, func(p *Proof) { p.Leaves[0].NATSSubject = "orders.us.created" }, "notInLog")
	add("another value of an attribute", 18, 18, func(p *Proof) { p.Leaves[0].Event.SetExt([]byte("zone"), []byte("c")) }, "notInLog")
	add("not covered yet", 18, 18, func(p *Proof) { p.First = 317 }, "outsideOfLog")
	add("before the log", 18, 18, func(p *Proof) { p.First = 16 }, "outsideOfLog")
	for _, c := range []struct {
		name, result string
		fill         byte
	}{
		{"under a checkpoint of a key that is not in the keyring", "unknownKey", fillUnknown},
		{"under a checkpoint of a key that had expired", "keyNotValid", fillExpired},
		{"under a checkpoint of a key that was revoked", "keyNotValid", fillRevoked},
	} {
		add(c.name, 18, 18, func(p *Proof) {
			raw, err := l.cp.Sign(testSigner(t, c.fill))
			if err != nil {
				t.Fatal(err)
			}
			p.Checkpoint = raw
		}, c.result)
	}
	add("under a checkpoint of before its key was revoked", 18, 18, func(p *Proof) {
		cp := l.cp
		cp.Time = cp.Time.Add(-2 * time.Hour)
		raw, err := cp.Sign(testSigner(t, fillRevoked))
		if err != nil {
			t.Fatal(err)
		}
		p.Checkpoint = raw
	}, "keyRevoked")
	add("under a checkpoint that was changed", 18, 18, func(p *Proof) {
		p.Checkpoint = bytes.Replace(p.Checkpoint, []byte("time 2026-11-22T12"), []byte("time 2026-11-22T13"), 1)
	}, "badSignature")
	add("keyring of another root", 18, 18, func(p *Proof) {
		p.Keyring = bytes.Replace(p.Keyring, []byte(`"sig":"`), []byte(`"sig":"AAAA`), 1)
		p.Keyring = append(p.Keyring[:0:0], p.Keyring...)
	}, "keyring")
	v.Proofs = append(v.Proofs, vectorProof{
		Name: "of a version to come", Proof: string(bytes.Replace(encode(t, proofOf(t, l, all, 18, 18)), []byte(ProofFormat), []byte("signet/log-proof/v2"), 1)), Result: "malformed",
	}, vectorProof{
		Name: "a hash that is not base64", Proof: string(bytes.Replace(encode(t, proofOf(t, l, all, 18, 18)), []byte("\"hashes\": [\n  \""), []byte("\"hashes\": [\n  \"*"), 1)), Result: "malformed",
	}, vectorProof{
		Name: "printed again", Proof: string(bytes.ReplaceAll(encode(t, proofOf(t, l, all, 18, 18)), []byte("\n "), []byte("\n  "))), Result: "malformed",
	})
}

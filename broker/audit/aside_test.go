package audit

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/signetbus/signet/internal/auditlog"
)

// segments returns the files of the spool.
func (r *journalRig) segments() map[string][]byte {
	r.t.Helper()
	files, err := filepath.Glob(filepath.Join(r.dir, "*"+segmentSuffix))
	r.must(err)
	out := map[string][]byte{}
	for _, f := range files {
		out[f], err = os.ReadFile(f)
		r.must(err)
	}
	return out
}

// TestSegmentOfAnOlderChain: a file of the spool that is put back when the node has gone on
// in another chain, or that is of another node, is not taken.
func TestSegmentOfAnOlderChain(t *testing.T) {
	for _, tt := range []struct {
		name     string
		anchored bool   // chains.json says how far the node was
		empty    bool   // it is all that the spool has
		node     string // that wrote it
	}{
		{"the node knows where it is", true, false, "n1"},
		{"only the spool says so", false, false, "n1"},
		{"it is all that there is", false, true, "n1"},
		{"of another node", true, false, "n2"},
		{"of another node, and all that there is", false, true, "n2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newJournalRig(t, 16<<20)
			j := r.open(func(c *JournalConfig) { c.Node = tt.node })
			j.Attach(r.stream)
			for i := range 5 {
				r.must(j.Keep(t.Context(), login(i)))
			}
			r.settle(j)
			var old []byte
			for _, old = range r.segments() {
			}
			r.must(j.Keep(t.Context(), login(5))) // and on, without the file
			r.settle(j)
			r.close(j)
			r.must(os.RemoveAll(r.dir))
			j = r.open(nil)
			j.Attach(r.stream)
			r.must(j.Keep(t.Context(), login(6)))
			r.settle(j)
			r.close(j)
			r.must(os.RemoveAll(r.dir))
			j = r.open(nil)
			j.Attach(r.stream)
			r.must(j.Keep(t.Context(), login(7)))
			r.settle(j)
			if tt.anchored {
				r.must(j.spool.forget(j))
			}
			r.close(j)
			if tt.empty {
				r.must(os.RemoveAll(r.dir))
				r.must(os.MkdirAll(r.dir, 0o700))
			}
			file := filepath.Join(r.dir, strings.Repeat("0", 20)+segmentSuffix)
			r.must(os.WriteFile(file, old, 0o600))

			j = r.open(nil)
			j.Attach(r.stream)
			r.must(j.Keep(t.Context(), login(8)))
			r.settle(j)
			aside := func() bool { _, err := os.Stat(file + asideSuffix); return err == nil }
			until(t, "it is set aside", func() bool { return aside() && j.Left() == 0 })
			if err := j.Health(); err == nil || !strings.Contains(err.Error(), asideSuffix) {
				t.Errorf("health: %v", err)
			}
			kept, err := os.ReadFile(file + asideSuffix)
			if err != nil || !bytes.Contains(kept, []byte("number 4")) {
				t.Errorf("%d bytes are aside: %v", len(kept), err)
			}
			if _, err := os.Stat(file); err == nil {
				t.Error("the file is still there")
			}
			check := func(more int) {
				t.Helper()
				records, report := r.read("shop", r.seal(j))
				r.exactly(records, 9+more)
				if tt.node == "n1" && !report.OK { // n2 has no key in the ring
					t.Fatalf("%+v", report.Faults)
				}
			}
			check(0)
			notices, _ := r.read(auditlog.SystemTenant)
			told := false
			for i := range notices {
				told = told || strings.Contains(notices[i].Detail, "set aside")
			}
			if !told {
				t.Error("the trail does not tell of it")
			}
			r.close(j) // and nothing is wrong at the next start
			r.must(os.Remove(file + asideSuffix))
			j = r.open(nil)
			j.Attach(r.stream)
			r.must(j.Keep(t.Context(), login(9)))
			r.settle(j)
			check(1)
			// What was written on the old chain before the stream was there is in the spool
			// still, and in the new chain: where it was all that there is, that is told again.
			if err := j.Health(); err != nil && !tt.empty {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}

// FuzzSegment: what is read of a file of the spool is whole batches, the rest is kept beside
// it, and the file is read the same again.
func FuzzSegment(f *testing.F) {
	signer, _ := nodeKey(f)
	w := auditlog.NewWriter("shop", auditlog.ChainID{Node: "n1", Chain: "00000000000000aa"})
	now := time.Now()
	batch, _, _, err := w.Batch([]auditlog.Entry{{Time: now, Kind: auditlog.KindChain, Outcome: auditlog.OutcomeOK}}, now, signer)
	if err != nil {
		f.Fatal(err)
	}
	framed := binary.BigEndian.AppendUint32(nil, uint32(len(batch)))
	framed = append(binary.BigEndian.AppendUint32(framed, crc32.Checksum(batch, castagnoli)), batch...)
	f.Add(batch, []byte(nil))
	f.Add(batch, framed)
	f.Add(batch, framed[:len(framed)-1])
	f.Add([]byte("x\n"), []byte{0, 0, 0, 1, 0, 0, 0, 0})
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, body, rest []byte) {
		// The checksum is no secret, and a fuzzer does not guess it.
		data := binary.BigEndian.AppendUint32(nil, uint32(len(body)))
		data = append(append(binary.BigEndian.AppendUint32(data, crc32.Checksum(body, castagnoli)), body...), rest...)
		file := filepath.Join(dir, "1"+segmentSuffix)
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		_ = os.Remove(file + ".torn")
		read := func() (int64, int, string) {
			seg, frames, torn, err := readSegment(file)
			if err != nil {
				t.Fatal(err)
			}
			defer seg.file.Close()
			for i := range frames {
				at := frames[i].at
				if _, err := auditlog.ParseBatch(data[at : at+int64(frames[i].bytes)]); err != nil {
					t.Errorf("frame %d is no batch: %v", i, err)
				}
			}
			return seg.size, len(frames), torn
		}
		size, n, torn := read()
		kept, err := os.ReadFile(file + ".torn")
		if (torn != "") != (err == nil) || !bytes.Equal(kept, data[size:]) {
			t.Errorf("%q: %d of %d bytes are kept, %v", torn, len(kept), int64(len(data))-size, err)
		}
		if again, m, torn := read(); again != size || m != n || torn != "" {
			t.Errorf("read again: %d bytes, %d batches, %q; before %d, %d", again, m, torn, size, n)
		}
	})
}

package translog

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func (r *rig) replaceBlock(block []byte) {
	r.tb.Helper()
	file := blockFile(r.tb, r.dir)
	if err := os.WriteFile(file, block, 0o600); err != nil {
		r.tb.Fatal(err)
	}
	if err := os.Remove(filepath.Join(filepath.Dir(file), "index.db")); err != nil && !errors.Is(err, os.ErrNotExist) {
		r.tb.Fatal(err)
	}
}

// Events that cannot be read are not logged as absent: the log waits and says so, and goes
// on over them when they are there again. Only damage that was accepted is for good.
func TestDamageIsNotLoggedAsAbsent(t *testing.T) {
	for _, tt := range []struct {
		name   string
		damage func(block []byte, recs []record) []byte
		size   int64 // leaves that the log may have meanwhile
	}{
		{"in the middle", func(b []byte, recs []record) []byte {
			return append(bytes.Clone(b[:recs[9].at]), b[recs[12].at:]...)
		}, 9},
		{"at the head", func(b []byte, recs []record) []byte { return b[recs[5].at:] }, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			s, stop := r.serve(nil)
			eventually(t, "the log", func() (bool, string) {
				st := s.States()[0]
				return st.Leading, fmt.Sprintf("%+v", st)
			})
			stop()
			r.publish(0, 20)
			r.end()
			whole := readFile(t, blockFile(t, r.dir))
			r.replaceBlock(tt.damage(bytes.Clone(whole), records(t, whole)))
			r.start()
			s, stop = r.serve(nil)
			eventually(t, "the fault", func() (bool, string) {
				st := s.States()[0]
				return errors.Is(st.Fault, ErrDamaged) && !st.Behind.IsZero(), fmt.Sprintf("%+v", st)
			})
			st := s.States()[0]
			if err := st.Trouble(st.Behind.Add(Patience + time.Second)); !errors.Is(err, ErrDamaged) {
				t.Errorf("health: %v", err)
			}
			note, _, err := s.Last(t.Context(), "shop", "ORDERS")
			if err != nil || note.Size > tt.size {
				t.Fatalf("logged over the hole: %d leaves, %v", note.Size, err)
			}
			stop()
			r.end()
			r.replaceBlock(whole)
			r.start()
			s, _ = r.serve(nil)
			note = awaitSize(t, s, 20)
			if got := verifyAll(t, s, &note.Checkpoint); got.Finding != nil || got.Compared != 20 || got.Absent != 0 {
				t.Errorf("after it healed: %+v, %+v", got, got.Finding)
			}
			if st := s.States()[0]; st.Fault != nil || st.Trouble(time.Now()) != nil {
				t.Errorf("after it healed: %+v", st)
			}
		})
	}
}

func TestAcceptedDamageIsAbsent(t *testing.T) {
	r := newRig(t)
	r.publish(0, 20)
	r.end()
	whole := readFile(t, blockFile(t, r.dir))
	recs := records(t, whole)
	r.replaceBlock(append(bytes.Clone(whole[:recs[9].at]), whole[recs[12].at:]...))
	r.start()
	s, stop := r.serve(func(c *Config) { c.Lacks = func(string, string) uint64 { return 2 } })
	eventually(t, "the fault: three are missing, two are known", func() (bool, string) {
		st := s.States()[0]
		return errors.Is(st.Fault, ErrDamaged), fmt.Sprintf("%+v", st)
	})
	stop()
	s, _ = r.serve(func(c *Config) { c.Lacks = func(string, string) uint64 { return math.MaxUint64 } })
	note := awaitSize(t, s, 20)
	if got := verifyAll(t, s, &note.Checkpoint); got.Finding != nil || got.Compared != 17 || got.Absent != 3 {
		t.Errorf("%+v, %+v", got, got.Finding)
	}
}

// Events that have aged out before the log reached them are no damage.
func TestAgedBeforeLoggedIsAbsent(t *testing.T) {
	r := newRig(t)
	r.updateStream(keeping(2 * time.Second))
	s, stop := r.serve(nil)
	r.publish(0, 5)
	awaitSize(t, s, 5)
	stop()
	r.publish(5, 20)
	r.awaitMessages(0)
	s, _ = r.serve(nil)
	note := awaitSize(t, s, 20)
	if got := verifyAll(t, s, &note.Checkpoint); got.Finding != nil {
		t.Errorf("%+v, %+v", got, got.Finding)
	}
	if st := s.States()[0]; st.Absent != 15 {
		t.Errorf("%+v", st)
	}
}

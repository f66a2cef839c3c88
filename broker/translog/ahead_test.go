package translog

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"testing"
	"time"
)

// TestNoCheckpointOfWhatTheServerHasNot: a record with a right checksum that the server has
// not (yet) taken into the stream, such as one that it is still syncing or could not sync,
// or one that another hand has put into the file, is in no checkpoint, and does not end
// the log.
func TestNoCheckpointOfWhatTheServerHasNot(t *testing.T) {
	r := newRig(t)
	r.publish(0, 20)
	s, _ := r.serve(nil)
	awaitSize(t, s, 20)
	eventually(t, "the files are read", func() (bool, string) {
		st := s.States()[0]
		return st.Leading && !st.ByServer, fmt.Sprintf("%+v", st)
	})
	file := blockFile(t, r.dir)
	block := readFile(t, file)
	recs := records(t, block)
	rec := bytes.Clone(block[recs[19].at:][:recs[19].size])
	binary.LittleEndian.PutUint64(rec[4:], 21)
	seal(t, rec)
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(rec); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the writer gives the files up", func() (bool, string) {
		st := s.States()[0]
		return st.ByServer, fmt.Sprintf("%+v", st)
	})
	if st := s.States()[0]; st.Size != 20 {
		t.Fatalf("a checkpoint has it: %+v", st)
	}
	r.publish(20, 40)
	note := awaitSize(t, s, 40)
	if got := verifyAll(t, s, &note.Checkpoint); got.Finding != nil || got.Compared != 40 {
		t.Errorf("%+v, %+v", got, got.Finding)
	}
	if err := s.States()[0].Trouble(time.Now()); err != nil {
		t.Error(err)
	}
}

package integrity

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestRemainsOfADeletion: what a deletion that was cut short has left is gone before the
// server starts, so that a stream deleted then does not come back with its messages, as
// it does beside such remains.
func TestRemainsOfADeletion(t *testing.T) {
	again := func(t *testing.T, remove bool) (messages uint64) {
		t.Helper()
		dir := t.TempDir()
		streams := filepath.Join(dir, storeFolder, "$G", "streams")
		remains := filepath.Join(streams, ".EVENTS", "msgs")
		if err := os.MkdirAll(remains, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(remains, "1.blk"), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		kept := filepath.Join(streams, "OTHER")
		if err := os.Mkdir(kept, 0o700); err != nil {
			t.Fatal(err)
		}
		if remove {
			got, err := RemoveDeleted(dir)
			if err != nil {
				t.Fatal(err)
			}
			if want := []string{storeFolder + "/$G/streams/.EVENTS"}; !slices.Equal(got, want) {
				t.Errorf("removed %v, want %v", got, want)
			}
			if _, err := os.Stat(kept); err != nil {
				t.Errorf("another folder: %v", err)
			}
		}
		return deletedAndMade(t, dir, !remove)
	}
	if n := again(t, true); n != 0 {
		t.Errorf("a stream that was deleted holds %d messages when it is made again", n)
	}
	if n := again(t, false); n == 0 {
		t.Error("nats-server deletes beside remains now: RemoveDeleted may go")
	}
}

// deletedAndMade fills a stream, deletes it and makes it again. The remains of an
// earlier deletion are put back if the server has removed them at its start.
func deletedAndMade(t *testing.T, dir string, remains bool) uint64 {
	t.Helper()
	s := startServer(t, dir)
	defer stopServer(s)
	_, js := jet(t, s)
	if _, err := js.CreateStream(t.Context(), appendOnlyConfig("EVENTS", 1)); err != nil {
		t.Fatal(err)
	}
	fill(t, js, "EVENTS.a", 1, 10, 100)
	if remains {
		if err := os.MkdirAll(filepath.Join(dir, storeFolder, "$G", "streams", ".EVENTS", "obs", "x"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := js.DeleteStream(t.Context(), "EVENTS"); err != nil {
		t.Fatal(err)
	}
	st, err := js.CreateStream(t.Context(), appendOnlyConfig("EVENTS", 1))
	if err != nil {
		t.Fatal(err)
	}
	return st.CachedInfo().State.Msgs
}

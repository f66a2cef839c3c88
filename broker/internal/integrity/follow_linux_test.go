package integrity

import (
	"errors"
	"path/filepath"
	"syscall"
	"testing"
)

// TestFollowDoesNotWaitForPipes: who may write to the volume can put a pipe where a block,
// a key or the folder is expected; to open it must not hold a log up for ever.
func TestFollowDoesNotWaitForPipes(t *testing.T) {
	pipe := func(name string) {
		t.Helper()
		if err := syscall.Mkfifo(name, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, v := range encrypted() {
		dir := copyStore(t, ordersStore(t, v.server))
		msgs := v.orders(dir).msgs
		f := mustFollow(t, dir, v, 1)
		if n, err := drain(f); n != messages || err != nil {
			t.Fatalf("%d messages, then %v", n, err)
		}
		pipe(filepath.Join(msgs, "5.blk"))
		if n, err := drain(f); n != 0 || !errors.Is(err, ErrStore) {
			t.Errorf("%s, a pipe as block: %d more, then %v", v.name, n, err)
		}
		mustRemove(t, filepath.Join(msgs, "5.blk"))
		mustRemove(t, filepath.Join(msgs, "4.key"))
		pipe(filepath.Join(msgs, "4.key"))
		if _, err := Follow(dir, v.key, "$G", "ORDERS", messages); !errors.Is(err, ErrStore) {
			t.Errorf("%s, a pipe as key: %v", v.name, err)
		}
	}
	dir := copyStore(t, ordersStore(t))
	msgs := variant{}.orders(dir).msgs
	if err := syscall.Rename(msgs, msgs+"-"); err != nil {
		t.Fatal(err)
	}
	pipe(msgs)
	if _, err := Follow(dir, nil, "$G", "ORDERS", 1); !errors.Is(err, ErrStore) {
		t.Errorf("a pipe as folder: %v", err)
	}
}

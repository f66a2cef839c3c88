package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	modtlog "golang.org/x/mod/sumdb/tlog"

	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/tlog"
)

// keptTree is a log whose checkpoints are kept, and who proves from it.
type keptTree struct {
	t      *testing.T
	signer *signing.Signer
	begun  time.Time
	hashes []tlog.Hash
	asked  int
	lost   int64 // tiles of sizes below it have made way
}

func (k *keptTree) ReadHashes(at []int64) (out []tlog.Hash, err error) {
	for _, i := range at {
		out = append(out, k.hashes[i])
	}
	return out, nil
}

func newKeptTree(t *testing.T, signer *signing.Signer, begun time.Time, leaves int64) *keptTree {
	k := &keptTree{t: t, signer: signer, begun: begun.Truncate(time.Second)}
	for i := range leaves {
		more, err := modtlog.StoredHashes(i, fmt.Append(nil, i), k)
		if err != nil {
			t.Fatal(err)
		}
		k.hashes = append(k.hashes, more...)
	}
	return k
}

// at is the checkpoint of size leaves after so many seconds.
func (k *keptTree) at(size int64, seconds int, change ...func(*tlog.Checkpoint)) string {
	root, err := modtlog.TreeHash(size, k)
	if err != nil {
		k.t.Fatal(err)
	}
	c := tlog.Checkpoint{
		Origin: tlog.Origin{Cluster: "c", Tenant: "shop", Stream: "ORDERS", Start: k.begun}, Size: size, First: 1, Root: root,
		Time: k.begun.Add(time.Duration(seconds) * time.Second), Created: k.begun,
	}
	for _, f := range change {
		f(&c)
	}
	raw, err := c.Sign(k.signer)
	if err != nil {
		k.t.Fatal(err)
	}
	return string(raw)
}

func (k *keptTree) prove(_ context.Context, older, newer string) (out [][]byte, err error) {
	k.asked++
	o, err := tlog.ParseNote([]byte(older))
	if err != nil {
		return nil, err
	}
	n, err := tlog.ParseNote([]byte(newer))
	if err != nil {
		return nil, err
	}
	if o.Size < k.lost {
		return nil, fmt.Errorf("%w: let go", client.ErrNotFound)
	}
	hashes, err := tlog.ProveConsistency(o.Size, n.Size, k)
	for i := range hashes {
		out = append(out, hashes[i][:])
	}
	return out, err
}

func anotherRoot(c *tlog.Checkpoint) { c.Root[0] ^= 1 }

// Every checkpoint of a file counts, not only the last: the sentence of each fault names
// where it stands.
func TestEveryKeptCheckpointCounts(t *testing.T) {
	signer, ring, now := logKeys(t)
	k := newKeptTree(t, signer, now.Add(-50*time.Minute), 40)
	last := k.at(40, 2000)
	forged := []byte(k.at(10, 10))
	if at := &forged[len(forged)-20]; *at == 'A' { // within the signature
		*at = 'B'
	} else {
		*at = 'A'
	}
	tooEarly := func(c *tlog.Checkpoint) { c.Time = c.Time.Add(-100 * time.Hour) }
	for _, tt := range []struct {
		name, file string
		want       keptCount
		lost       int64
		says       string
	}{
		{"one", k.at(5, 5), keptCount{Read: 1, Compared: 1}, 0, ""},
		{"some", k.at(5, 5) + k.at(9, 9) + k.at(20, 20), keptCount{Read: 3, Compared: 3}, 0, ""},
		{"by two nodes, the later first", k.at(9, 9) + k.at(5, 5) + k.at(9, 9), keptCount{Read: 3, Compared: 2}, 0, ""},
		{"the empty log", k.at(0, 1) + k.at(9, 9), keptCount{Read: 2, Compared: 2}, 0, ""},
		{"a torn one", k.at(5, 5) + k.at(7, 7)[:80] + "\n" + k.at(9, 9), keptCount{Read: 2, Compared: 2, Torn: 1}, 0, ""},
		{"of a time before the key", k.at(5, 5, tooEarly) + k.at(9, 9), keptCount{Read: 2, Compared: 1, Worthless: 1}, 0, ""},
		{"whose tiles have made way", k.at(5, 5) + k.at(9, 9), keptCount{Read: 2, Compared: 1, Unproven: 1, Why: "let go"}, 6, ""},
		{"forged at the head", string(forged) + k.at(20, 20), keptCount{}, 0, "line 1: tlog: the signature of the checkpoint does not match"},
		{"forged in the middle", k.at(5, 5) + string(forged) + k.at(20, 20), keptCount{}, 0, "line 9: tlog: the signature"},
		{"of another history", k.at(5, 5, anotherRoot) + k.at(20, 20), keptCount{}, 0, "NOT CONSISTENT"},
		{"two of one size", k.at(5, 5) + k.at(20, 20) + k.at(5, 6, anotherRoot), keptCount{}, 0, "line 17 (5 leaves at "},
		{"smaller and later", k.at(9, 5) + k.at(5, 9) + k.at(20, 20), keptCount{}, 0, "is smaller than"},
		{"later than the last of the log", k.at(5, 2001), keptCount{}, 0, "is smaller than"},
		{"another first sequence", k.at(5, 5) + k.at(6, 6, func(c *tlog.Checkpoint) { c.First = 2 }), keptCount{}, 0, "the first sequence is 2, in other checkpoints 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k.lost = tt.lost
			got, err := compareFile(t, k, tt.file, last, func(file string) (*keptRun, error) {
				return readCheckpoints(t.Context(), file, "shop/ORDERS", nil, ring)
			})
			switch {
			case tt.says == "" && err != nil:
				t.Fatal(err)
			case tt.says != "":
				if err == nil || exitCode(err) != exitRefused || !strings.Contains(err.Error(), tt.says) {
					t.Errorf("got %v (exit code %d), want %q", err, exitCode(err), tt.says)
				}
			case got.count.Read != tt.want.Read || got.count.Compared != tt.want.Compared || got.count.Torn != tt.want.Torn ||
				got.count.Worthless != tt.want.Worthless || got.count.Unproven != tt.want.Unproven || !strings.Contains(got.count.Why, tt.want.Why):
				t.Errorf("counted %+v, want %+v", got.count, tt.want)
			}
		})
	}
}

func compareFile(t *testing.T, k *keptTree, text, last string, read func(string) (*keptRun, error)) (*keptRun, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "sink")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := read(file)
	if err != nil {
		return nil, err
	}
	newest, err := tlog.ParseNote([]byte(last))
	if err != nil {
		t.Fatal(err)
	}
	return got, got.held(context.Background(), k.prove, newest)
}

// Of a long sink the broker is asked of a bounded number, from the first on.
func TestLongSinkIsComparedEvenly(t *testing.T) {
	signer, ring, now := logKeys(t)
	k := newKeptTree(t, signer, now.Add(-50*time.Minute), 1000)
	var sink strings.Builder
	for i := range 1000 {
		sink.WriteString(k.at(int64(i+1), i))
	}
	read := func(file string) (*keptRun, error) { return readCheckpoints(t.Context(), file, "", nil, ring) }
	got, err := compareFile(t, k, sink.String(), k.at(1000, 1000), read)
	if err != nil {
		t.Fatal(err)
	}
	if c := got.count; c.Read != 1000 || c.Compared <= maxCompared/2 || c.Compared > maxCompared || k.asked > maxCompared {
		t.Errorf("counted %+v, asked %d times", c, k.asked)
	}
	if got.spread[0].Size != 1 {
		t.Errorf("the first that is compared has %d leaves", got.spread[0].Size)
	}
	// The first is of another history.
	bad := k.at(1, 0, anotherRoot) + strings.TrimPrefix(sink.String(), k.at(1, 0))
	if _, err := compareFile(t, k, bad, k.at(1000, 1000), read); !errors.Is(err, tlog.ErrForked) {
		t.Errorf("got %v", err)
	}
}

// Files that were given in the wrong order are no contradiction; where only one of time and
// size says so, they are.
func TestFilesInTheWrongOrderAccuseNobody(t *testing.T) {
	signer, ring, now := logKeys(t)
	k := newKeptTree(t, signer, now.Add(-50*time.Minute), 10)
	for _, tt := range []struct {
		name, older, newer string
		code               int
	}{
		{"in order", k.at(5, 5), k.at(9, 9), exitOK},
		{"the same", k.at(5, 5), k.at(5, 5), exitOK},
		{"of one size, later first", k.at(5, 9), k.at(5, 5), exitOK},
		{"in the wrong order", k.at(9, 9), k.at(5, 5), exitUsage},
		{"in the wrong order, and forked before", k.at(3, 3) + k.at(9, 9), k.at(3, 3, anotherRoot) + k.at(5, 5), exitRefused},
		{"larger, and of an earlier time", k.at(9, 5), k.at(5, 9), exitRefused},
		{"smaller, and of a later time", k.at(5, 9), k.at(9, 5), exitRefused},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var runs []*keptRun
			for i, text := range []string{tt.older, tt.newer} {
				file := filepath.Join(t.TempDir(), fmt.Sprint(i))
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				run, err := readCheckpoints(t.Context(), file, "", nil, ring)
				if err != nil {
					t.Fatal(err)
				}
				runs = append(runs, run)
			}
			if err := inOrder(runs[0], runs[1]); exitCode(err) != tt.code {
				t.Errorf("got %v, exit code %d, want %d", err, exitCode(err), tt.code)
			}
		})
	}
}

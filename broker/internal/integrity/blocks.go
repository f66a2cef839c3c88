package integrity

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// blockFile is one N.blk on disk.
type blockFile struct {
	index uint32
	name  string
	size  int64
	mtime int64
}

// listBlocks returns the blocks of a folder in order. Blocks that vanish meanwhile are
// left out.
func listBlocks(dir string) ([]blockFile, error) {
	list, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStore, err)
	}
	var out []blockFile
	for _, e := range list {
		num, ok := strings.CutSuffix(e.Name(), ".blk")
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(num, 10, 32)
		if err != nil || strconv.FormatUint(n, 10) != num {
			continue
		}
		fi, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrStore, err)
		}
		out = append(out, blockFile{index: uint32(n), name: e.Name(), size: fi.Size(), mtime: fi.ModTime().UnixNano()})
	}
	slices.SortFunc(out, func(a, b blockFile) int { return int(int64(a.index) - int64(b.index)) })
	return out, nil
}

// examined is one block after its check.
type examined struct {
	file blockFile
	blockScan
	hash string // of the file; "" if it was trusted and has none
	gone bool   // it vanished while the store was in use
}

// blocks checks the block files in msgs and what they say together.
func (c *check) blocks(ctx context.Context, r *Replica, m *meta, f folder, msgs string, top *lock) error {
	files, err := listBlocks(msgs)
	if err != nil {
		return err
	}
	if f.vault != nil && path.Base(filepath.ToSlash(msgs)) != newMessages {
		files = withoutPurged(files, filepath.Join(filepath.Dir(msgs), newMessages))
	}
	if top != nil && !c.live {
		if files, err = dropUnborn(r, files, msgs); err != nil {
			return err
		}
	}
	known, sealed := c.Ledger.known(f.rel)
	if c.live {
		sealed = false
	}
	done := make([]examined, len(files))
	err = each(ctx, c.Workers, len(files), func(i int, buf []byte) ([]byte, error) {
		last := i == len(files)-1
		if last && c.live {
			done[i] = examined{file: files[i], gone: true}
			return buf, nil
		}
		end := tail{last: last, clean: sealed, powerCut: c.powerCut, lazy: c.LazySync || m.Replicas > 1}
		var err error
		done[i], buf, err = c.block(ctx, f, filepath.Join(msgs, files[i].name), files[i], known[files[i].index], end, buf)
		return buf, err
	})
	if err != nil {
		return err
	}
	done = slices.DeleteFunc(done, func(e examined) bool { return e.gone })
	var x *index
	if !c.live {
		if x, err = readIndex(msgs, f.name, top); err != nil && !errors.Is(err, errIndex) {
			return fmt.Errorf("%w: %w", ErrStore, err)
		}
	}
	j := join{check: c, r: r, m: m, msgs: path.Base(msgs), known: known, sealed: sealed, raft: f.raft}
	j.run(done, x)
	if !r.Damaged() { // else what was known is the evidence
		c.remember(f.rel, done, known)
	}
	return nil
}

func (c *check) remember(rel string, done []examined, known map[uint32]knownBlock) {
	list := make([]knownBlock, 0, len(done))
	for _, e := range done {
		k := knownBlock{Index: e.file.index, Size: e.file.size, MTime: e.file.mtime, Hash: e.hash, blockSummary: e.blockSummary}
		if k.Hash == "" {
			k.Hash = known[e.file.index].Hash
		}
		list = append(list, k)
	}
	c.Ledger.remember(rel, list)
}

// block verifies one block, or trusts the ledger.
func (c *check) block(ctx context.Context, f folder, file string, b blockFile, k knownBlock, end tail, buf []byte) (examined, []byte, error) {
	e := examined{file: b}
	key, err := f.vault.block(file, b.index)
	if err != nil {
		return e, buf, err
	}
	if key != nil && key.bad && b.size > 0 {
		if e.neverSynced(key, end) {
			e.torn = int(b.size)
		} else {
			e.lose(k, "its key file does not open: it is damaged, or of another store")
		}
		return e, buf, nil
	}
	same := k.Size == b.size && k.MTime == b.mtime && k.Hash != ""
	if same && !c.Full && !end.last && (f.vault == nil || key != nil) {
		e.blockSummary = k.blockSummary
		c.progress(b.size, &c.trusted)
		return e, buf, nil
	}
	if c.pace != nil {
		if err := c.pace(ctx, b.size); err != nil {
			return e, buf, err
		}
	}
	if b.size > maxBlock {
		e.fault(Damage{Kind: KindStructure, Detail: fmt.Sprintf("%d bytes: no block is so large", b.size)})
		return e, buf, nil
	}
	raw, err := readInto(file, b.size, buf)
	if c.live && errors.Is(err, fs.ErrNotExist) {
		e.gone = true
		return e, buf, nil
	}
	if err != nil {
		return e, buf, fmt.Errorf("%w: %w", ErrStore, err)
	}
	c.progress(b.size, &c.read)
	e.hash = contentHash(raw)
	stopped := end.clean
	// Without its key a block is plain, or nothing of it may pass for an append that was cut.
	lost := f.vault != nil && key == nil
	end.clean = end.clean || lost
	if err := e.scan(f, key, raw, end); err != nil {
		return e, raw, err
	}
	if lost && len(e.faults) > 0 {
		e.lose(k, "its key file is not there")
	}
	// The same size and time, or an orderly stop since: then not one byte may differ.
	if (same || stopped) && k.Size == b.size && k.Hash != "" && len(e.faults) == 0 && k.Hash != e.hash {
		e.fault(Damage{
			Kind: KindChanged, From: e.First, To: e.Last,
			Detail: "its records are sound, but it is not what was verified before: lengths in it are not covered by their checksums",
		})
	}
	return e, raw, nil
}

// scan decrypts, decompresses and verifies the bytes of a block, the first in place.
func (e *examined) scan(f folder, key *lock, raw []byte, end tail) error {
	short := -1
	if key != nil && end.last && end.powerCut && !end.clean {
		short = shortEnd(raw)
	}
	holes := key.records(raw)
	data, packed, err := decompress(raw)
	if err != nil {
		e.fault(Damage{Kind: KindUndecodable, Detail: err.Error()})
		return nil //nolint:nilerr // damage is a result
	}
	end.clean = end.clean || packed // compressed blocks are replaced as a whole
	h, err := newHasher(blockKey(f.name, e.file.index), f.raft)
	if err != nil {
		return err
	}
	e.blockScan = scanBlock(h, data, end)
	if len(e.faults) > 0 && short >= 0 && !packed {
		clear(data[short:])
		e.blockScan = scanBlock(h, data, end)
	}
	if len(e.faults) > 0 && len(holes) > 0 && !packed && end.last && end.powerCut && !end.clean {
		e.rescan(h, key, data, holes, end)
	}
	return nil
}

// rescan takes the first zeros of holes for the end of the record before, one more with
// each try. It goes by the try that finds no fault; where none does, the first scan counts.
func (e *examined) rescan(h *hasher, key *lock, data []byte, holes [][2]int, end tail) {
	for n := 1; n <= maxEdge; n++ {
		key.edges(data, holes, n)
		if again := scanBlock(h, data, end); len(again.faults) == 0 {
			e.blockScan = again
			return
		}
	}
}

// neverSynced: a key file that holds nothing, beside the last block, may never have
// reached the disk, and then no event of that block was acknowledged: the sync before
// would have brought it.
func (e *examined) neverSynced(key *lock, end tail) bool {
	return end.last && !end.clean && end.powerCut && end.lazy && key.blank()
}

// lose reports all of a block as lost, which is what k has known of it.
func (e *examined) lose(k knownBlock, why string) {
	e.blockScan = blockScan{blockSummary: blockSummary{First: k.First, Last: k.Last}}
	e.fault(Damage{Kind: KindKey, From: max(k.First, 1), To: k.Last, Detail: why})
}

// readInto reads a file of about size bytes, using buf if it is large enough.
func readInto(file string, size int64, buf []byte) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if int64(cap(buf)) < size {
		buf = make([]byte, size)
	}
	n, err := io.ReadFull(f, buf[:size])
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		err = nil // shorter by now: what is there is judged
	}
	return buf[:n], err
}

// each runs do for 0 to n-1 on some goroutines and waits for them. Each has its own
// buffer, which do may replace. The first error ends it.
func each(ctx context.Context, workers, n int, do func(i int, buf []byte) ([]byte, error)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(workers, n) {
		wg.Go(func() {
			var buf []byte
			for {
				i := int(next.Add(1)) - 1
				if i >= n || ctx.Err() != nil {
					return
				}
				var err error
				if buf, err = do(i, buf); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

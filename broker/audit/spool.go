package audit

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/signetbus/signet/internal/auditlog"
	"github.com/signetbus/signet/internal/durablefile"
)

const (
	chainsFile    = "chains.json"
	segmentSuffix = ".spool"
	frameHeader   = 8 // length and CRC of what follows, big endian
	// segmentShare of the spool is a segment, at most segmentBytes: what the stream has is
	// only dropped by whole segments.
	segmentShare = 8
	segmentBytes = 1 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrSpool: the folder of the spool cannot be used.
var ErrSpool = errors.New("audit: spool")

// spool keeps batches on disk until the stream has them, and how far each chain was
// when a segment was dropped. The journal's worker appends, its publisher reads and
// drops.
type spool struct {
	dir   string
	limit int64 // of a segment, after which a new one is begun
	bytes atomic.Int64

	mu       sync.Mutex // held during writes and syncs, never together with the journal's
	segments []*segment // oldest first; the last one is written to
	next     uint64     // number of the next segment
	broken   error      // a sync failed: nothing that is written now could be trusted
}

// segment is one file.
type segment struct {
	file    *os.File
	name    string
	size    int64
	pending atomic.Int64 // frames that the stream does not have
	frames  int64        // that were in it when it was opened, or have come since
	fresh   bool         // this process made it, so it may be written to
}

// frame is one batch in the spool.
type frame struct {
	seg    *segment
	at     int64 // of the batch
	bytes  int
	tenant string
	after  auditlog.Position   // that it goes on from: for the first of a chain, the end of the one before; zero: it names none
	to     auditlog.Position   // where the chain is with it
	gone   []auditlog.Position // what its pruned records name
	proved bool                // this process wrote it
	made   time.Time           // time of its last record, if another process wrote it
}

// describe fills in what a batch says of itself.
func (f *frame) describe(b *auditlog.Batch) {
	first := &b.Records[0]
	f.tenant, f.to, f.after = first.Tenant, b.Last(), afterOf(first.Node, &first.Entry)
	if first.Seq > 1 {
		f.after = auditlog.Position{ChainID: b.ID(), Seq: first.Seq - 1, Hash: first.Prev}
	}
	f.made = b.Records[len(b.Records)-1].Time
	for i := range b.Records {
		if end := b.Records[i].PrunedEnd(); end.Seq > 0 {
			f.gone = append(f.gone, end)
		}
	}
}

// afterOf is the end of the chain before, as the first record of a chain names it; zero:
// it names none.
func afterOf(node string, first *auditlog.Entry) auditlog.Position {
	chain, number, ok := strings.Cut(first.Ref, "/")
	if !ok {
		return auditlog.Position{}
	}
	seq, _ := strconv.ParseUint(number, 10, 64) // 0 fits no position
	return auditlog.Position{ChainID: auditlog.ChainID{Node: node, Chain: chain}, Seq: seq, Hash: first.Before}
}

// kept is chains.json: by tenant, how far the stream had the chain of this node when
// the last segment was dropped. What came after it is in the segments that are there.
type kept struct {
	V      int                          `json:"v"`
	Node   string                       `json:"node"`
	Chains map[string]auditlog.Position `json:"chains"`
}

// openSpool reads what an earlier run has left. torn says what was cut off at the end
// of a segment because it was not whole; such bytes were never kept.
//
// Errors: ErrSpool.
func openSpool(dir, node string, most int64) (s *spool, chains map[string]auditlog.Position, frames []frame, torn string, err error) {
	fail := func(err error) (*spool, map[string]auditlog.Position, []frame, string, error) {
		return nil, nil, nil, "", fmt.Errorf("%w %s: %w; repair it, or move the folder away: the node then begins new chains, which the trail shows", ErrSpool, dir, err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fail(err)
	}
	if chains, err = readChains(dir, node); err != nil {
		return fail(err)
	}
	names, err := os.ReadDir(dir)
	if err != nil {
		return fail(err)
	}
	s = &spool{dir: dir, next: 1, limit: min(segmentBytes, most/segmentShare)}
	for _, n := range names { // sorted by name, and names have a fixed width
		base, ok := strings.CutSuffix(n.Name(), segmentSuffix)
		number, err := strconv.ParseUint(base, 10, 64)
		if !ok || err != nil {
			continue
		}
		seg, more, cut, err := readSegment(filepath.Join(dir, n.Name()))
		if err != nil {
			return fail(err)
		}
		if cut != "" {
			torn = strings.TrimPrefix(torn+"; "+cut, "; ")
		}
		frames = append(frames, more...)
		s.segments, s.next = append(s.segments, seg), number+1
		s.bytes.Add(seg.size)
	}
	return s, chains, frames, torn, nil
}

func readChains(dir, node string) (map[string]auditlog.Position, error) {
	b, err := os.ReadFile(filepath.Join(dir, chainsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return map[string]auditlog.Position{}, nil
	}
	if err != nil {
		return nil, err
	}
	var k kept
	if err := json.Unmarshal(b, &k); err != nil || k.V != auditlog.Version {
		return nil, fmt.Errorf("%s is not readable (%w)", chainsFile, errors.Join(err, errors.New("or of another version")))
	}
	if k.Node != node || k.Chains == nil {
		return map[string]auditlog.Position{}, nil // of a node with another name: its chains are not ours
	}
	return k.Chains, nil
}

func readSegment(path string) (seg *segment, frames []frame, torn string, err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0o600)
	if err != nil {
		return nil, nil, "", err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, "", errors.Join(err, f.Close())
	}
	seg = &segment{file: f, name: path}
	for {
		body, ok := nextFrame(data[seg.size:])
		if !ok {
			break
		}
		b, err := auditlog.ParseBatch(body)
		if err != nil {
			break
		}
		f := frame{seg: seg, at: seg.size + frameHeader, bytes: len(body)}
		f.describe(b)
		frames = append(frames, f)
		seg.size += frameHeader + int64(len(body))
		seg.pending.Add(1)
		seg.frames++
	}
	if rest := int64(len(data)) - seg.size; rest > 0 {
		torn = fmt.Sprintf("%d bytes at the end of %s", rest, filepath.Base(path))
		keep := os.WriteFile(path+".torn", data[seg.size:], 0o600) //nolint:gosec // a file of the spool
		if err := errors.Join(keep, f.Truncate(seg.size), f.Sync()); err != nil {
			return nil, nil, "", errors.Join(err, f.Close())
		}
	}
	return seg, frames, torn, nil
}

// nextFrame returns the body of the whole frame at the start of b.
func nextFrame(b []byte) ([]byte, bool) {
	if len(b) < frameHeader {
		return nil, false
	}
	n := int64(binary.BigEndian.Uint32(b))
	if n == 0 || n > auditlog.MaxBatchBytes || n > int64(len(b)-frameHeader) {
		return nil, false
	}
	body := b[frameHeader : frameHeader+n]
	return body, crc32.Checksum(body, castagnoli) == binary.BigEndian.Uint32(b[4:])
}

// append writes batches and syncs once. On an error none of them counts.
func (s *spool) append(batches [][]byte) ([]frame, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != nil {
		return nil, s.broken
	}
	seg, err := s.activeLocked()
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	frames := make([]frame, len(batches))
	for i, b := range batches {
		var h [frameHeader]byte
		binary.BigEndian.PutUint32(h[:], uint32(len(b)))
		binary.BigEndian.PutUint32(h[4:], crc32.Checksum(b, castagnoli))
		out.Write(h[:])
		frames[i] = frame{seg: seg, at: seg.size + int64(out.Len()), bytes: len(b)}
		out.Write(b)
	}
	if _, err := seg.file.WriteAt(out.Bytes(), seg.size); err != nil {
		// What was written is not whole: take it away again, so that nothing follows it.
		return nil, errors.Join(err, seg.file.Truncate(seg.size))
	}
	if err := seg.file.Sync(); err != nil {
		s.broken = fmt.Errorf("%w %s: %w; restart the broker when the disk is well", ErrSpool, s.dir, err)
		return nil, s.broken
	}
	seg.size += int64(out.Len())
	seg.pending.Add(int64(len(frames)))
	seg.frames += int64(len(frames))
	s.bytes.Add(int64(out.Len()))
	return frames, nil
}

// activeLocked returns the segment to write to.
func (s *spool) activeLocked() (*segment, error) {
	if n := len(s.segments); n > 0 && s.segments[n-1].size < s.limit && s.segments[n-1].fresh {
		return s.segments[n-1], nil
	}
	name := filepath.Join(s.dir, fmt.Sprintf("%020d%s", s.next, segmentSuffix))
	s.next++ // also after an error: the name may be taken then
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syncFolder(s.dir); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(name))
	}
	s.segments = append(s.segments, &segment{file: f, name: name, fresh: true})
	return s.segments[len(s.segments)-1], nil
}

// read returns the batch of a frame.
func (s *spool) read(f *frame) ([]byte, error) {
	b := make([]byte, f.bytes)
	if _, err := f.seg.file.ReadAt(b, f.at); err != nil {
		return nil, fmt.Errorf("%w %s: %w", ErrSpool, f.seg.name, err)
	}
	return b, nil
}

// drop removes the segments that the stream has whole, but the one that is written to:
// those of an earlier run, and what is full. It does so after it has noted how far the chains are. The publisher alone calls it: between the
// count of a segment and chains nothing may be settled.
func (s *spool) drop(node string, chains map[string]auditlog.Position) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	idle := func(seg *segment) bool { return seg.pending.Load() == 0 && (seg.size >= s.limit || !seg.fresh) }
	if !slices.ContainsFunc(s.segments, idle) {
		return nil
	}
	b, err := json.Marshal(kept{V: auditlog.Version, Node: node, Chains: chains})
	if err == nil {
		err = replaceFile(filepath.Join(s.dir, chainsFile), b)
	}
	if err != nil {
		return err
	}
	var faults []error
	s.segments = slices.DeleteFunc(s.segments, func(seg *segment) bool {
		if !idle(seg) {
			return false
		}
		s.bytes.Add(-seg.size)
		faults = append(faults, seg.file.Close(), os.Remove(seg.name))
		return true
	})
	return errors.Join(append(faults, syncFolder(s.dir))...)
}

// close closes the files.
func (s *spool) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var faults []error
	for _, seg := range s.segments {
		faults = append(faults, seg.file.Close())
	}
	s.segments = nil
	return errors.Join(faults...)
}

// replaceFile writes a file so that it has the old or the new content, whatever
// happens.
func replaceFile(name string, data []byte) error {
	return durablefile.Replace(name, data, 0o600)
}

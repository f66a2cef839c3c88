package integrity

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"time"
)

const (
	storeFolder = "jetstream"
	raftFolder  = "_js_"
	metaGroup   = "_meta_"
	newMessages = "__new_msgs__"
	// progressEvery is how often Options.Progress is called.
	progressEvery = 5 * time.Second
)

// Options of Check.
type Options struct {
	// Dir is the folder that the server was given as its store directory: it holds
	// jetstream/. Required.
	Dir string
	// SystemAccount is the account under which nats-server keeps its Raft groups.
	SystemAccount string
	// Key of an encrypted store. nil: the store is not encrypted.
	Key *StoreKey
	// Ledger of earlier checks. nil: everything is read, and the end of a store is
	// judged as after a power cut.
	Ledger *Ledger
	// Full reads also what the ledger knows.
	Full bool
	// LazySync: several records may share one sync (the durability barrier, or no sync
	// at all), so a power cut may take more than the last record.
	LazySync bool
	// Workers read blocks at the same time. 0 and anything over it mean GOMAXPROCS. Each
	// holds one block in memory, 8 MiB as a rule.
	Workers int
	// Progress is called about every five seconds with bytes done and in all. It must
	// not block.
	Progress func(done, total int64)
	// Now is the clock for ages; default time.Now.
	Now func() time.Time

	live bool // the store is in use: the last block and the index are left alone
	pace func(ctx context.Context, bytes int64) error
}

// Check verifies the stopped store in o.Dir. It reads, and changes nothing but what the
// package comment names; what it has verified goes into the ledger, which the caller
// saves. Damage is in the report and is no error.
//
// Errors: ErrStore, ErrWrongKey, or ctx's.
func Check(ctx context.Context, o Options) (*Report, error) {
	c := newCheck(o)
	found, err := c.find()
	if err != nil {
		return nil, err
	}
	for _, f := range found {
		c.total += f.bytes
	}
	folders := map[string]bool{}
	for _, f := range found {
		folders[f.rel] = true
		r, err := c.folder(ctx, f)
		if err != nil {
			return nil, err
		}
		c.report.Replicas = append(c.report.Replicas, *r)
	}
	if err := c.finish(); err != nil {
		return nil, err
	}
	compareSnapshots(c.report.Replicas)
	if err := c.replayed(); err != nil {
		return nil, err
	}
	o.Ledger.keep(folders)
	c.report.Read, c.report.Trusted = c.read.Load(), c.trusted.Load()
	return &c.report, nil
}

type check struct {
	Options
	report        Report
	total         int64
	read, trusted atomic.Int64
	lastProgress  atomic.Int64
	powerCut      bool
	keys          keyCount
}

// finish says what only all folders together tell.
func (c *check) finish() error {
	sizeFromGroups(c.report.Replicas)
	return c.keys.err(filepath.Join(c.Dir, storeFolder))
}

func newCheck(o Options) *check {
	if o.Workers <= 0 || o.Workers > runtime.GOMAXPROCS(0) {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	c := &check{Options: o, powerCut: o.Ledger.rebooted()}
	c.lastProgress.Store(o.Now().UnixNano())
	return c
}

// progress counts bytes that are done and tells now and then.
func (c *check) progress(n int64, counter *atomic.Int64) {
	counter.Add(n)
	if c.Progress == nil {
		return
	}
	now, was := c.Now().UnixNano(), c.lastProgress.Load()
	if now-was >= int64(progressEvery) && c.lastProgress.CompareAndSwap(was, now) {
		c.Progress(c.read.Load()+c.trusted.Load(), c.total)
	}
}

// folder is one store of blocks.
type folder struct {
	account string
	name    string // of the stream, or of the group
	rel     string // relative to Dir, with slashes
	raft    bool
	bytes   int64
	vault   *vault // set while it is checked
}

// find lists streams, then Raft groups, by name.
func (c *check) find() ([]folder, error) {
	root := filepath.Join(c.Dir, storeFolder)
	accounts, err := subfolders(root)
	if err != nil {
		return nil, err
	}
	var out []folder
	for _, acc := range accounts {
		names, err := subfolders(filepath.Join(root, acc, "streams"))
		if err != nil {
			return nil, err
		}
		for _, n := range names {
			if strings.HasPrefix(n, ".") { // being deleted
				continue
			}
			out = append(out, folder{account: acc, name: n, rel: strings.Join([]string{storeFolder, acc, "streams", n}, "/")})
		}
	}
	groups, err := subfolders(filepath.Join(root, c.SystemAccount, raftFolder))
	if err != nil {
		return nil, err
	}
	for _, n := range groups {
		out = append(out, folder{name: n, raft: true, rel: strings.Join([]string{storeFolder, c.SystemAccount, raftFolder, n}, "/")})
	}
	for i := range out {
		out[i].bytes = blockBytes(filepath.Join(c.Dir, filepath.FromSlash(out[i].rel), "msgs"))
	}
	return out, nil
}

func subfolders(dir string) ([]string, error) {
	list, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStore, err)
	}
	var out []string
	for _, e := range list {
		if e.IsDir() {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// blockBytes sizes a folder for the progress; what cannot be read counts nothing here
// and is reported when it is checked.
func blockBytes(dir string) int64 {
	blocks, _ := listBlocks(dir)
	var sum int64
	for _, b := range blocks {
		sum += b.size
	}
	return sum
}

// StoreBytes is how much block files hold in all, which says how long a full check takes.
func StoreBytes(dir, systemAccount string) (int64, error) {
	found, err := newCheck(Options{Dir: dir, SystemAccount: systemAccount}).find()
	var sum int64
	for _, f := range found {
		sum += f.bytes
	}
	return sum, err
}

// folder checks one store of blocks with what stands around it.
func (c *check) folder(ctx context.Context, f folder) (*Replica, error) {
	dir := filepath.Join(c.Dir, filepath.FromSlash(f.rel))
	r := &Replica{Account: f.account, Stream: f.name, Dir: f.rel, Replicas: 1}
	if f.raft {
		r.Stream, r.Group = "", f.name
	}
	if f.vault = c.Key.vault(f, &c.keys); f.vault == nil {
		if raw, err := readKey(filepath.Join(dir, metaKey)); err != nil || raw != nil {
			return nil, errors.Join(err, fmt.Errorf("%w: %s is encrypted, and no key was given; nothing was changed", ErrWrongKey, dir))
		}
	}
	m, lock, err := c.meta(r, dir, f)
	if err != nil {
		return nil, err
	}
	r.AppendOnly = f.raft || m.appendOnly()
	r.Replicas = max(m.Replicas, 1)
	if f.raft {
		if !r.Damaged() { // else the labels may name another stream
			r.Account, r.Stream, r.Consumer = m.Metadata["account"], m.Metadata["stream"], m.Metadata["consumer"]
		}
		if err := checkSnapshots(r, dir, f.name); err != nil {
			return nil, err
		}
	} else if err := c.consumers(r, dir, f); err != nil {
		return nil, err
	}
	msgs := filepath.Join(dir, "msgs")
	// A purge that was interrupted after it had made its new folder is completed by the
	// server: it throws msgs away.
	if blocks, _ := listBlocks(filepath.Join(dir, newMessages)); len(blocks) > 0 {
		msgs = filepath.Join(dir, newMessages)
	}
	if err := c.blocks(ctx, r, m, f, msgs, lock); err != nil {
		return nil, err
	}
	c.forgive(r)
	return r, nil
}

// forgive turns damage that the operator has accepted into notes. A key is not forgiven:
// the server must not see what it belongs to (Withdraw), and then that is missing.
func (c *check) forgive(r *Replica) {
	kept := r.Damage[:0]
	for _, d := range r.Damage {
		if d.Kind != KindKey && d.From > 0 && c.Ledger.covered(r.Owner(), d.From) {
			r.note("accepted earlier: %s", d)
			r.Holes += max(d.To, d.From) - d.From + 1
			continue
		}
		kept = append(kept, d)
	}
	r.Damage = kept
}

package integrity

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/minio/highwayhash"

	"github.com/signetbus/signet/internal/durablefile"
)

const (
	ledgerVersion = 1
	ledgerFile    = "ledger.json"
	maxLedger     = 512 << 20
)

// contentKey keys the content hashes of the ledger. They find accidents, not forgers:
// whoever can write to the store can write to the ledger.
var contentKey = sha256.Sum256([]byte("signet integrity ledger"))

// Ledger remembers which blocks were verified, with their size, time of change, content
// hash and what they hold, so that a start need not read everything again. Trusting it
// means not to see a bit that has flipped under an unchanged time since then; the
// scrubber and a full check compare the hash, which also covers what the checksums of
// records do not.
//
// After an orderly stop (Seal) it names every block with its size, so the next start
// sees every loss, also at the end and in streams that may have holes.
//
// It is safe for concurrent use.
type Ledger struct {
	file string
	mu   sync.Mutex // guards d; held during the write in Save
	d    ledgerData
}

type ledgerData struct {
	Version  int                      `json:"version"`
	Boot     string                   `json:"boot,omitempty"`   // of the run that wrote it
	Sealed   bool                     `json:"sealed,omitempty"` // the server was stopped in order
	Folders  map[string][]knownBlock  `json:"folders,omitempty"`
	Accepted map[string]acceptedHoles `json:"accepted,omitempty"` // by account/stream
}

type knownBlock struct {
	Index uint32 `json:"i"`
	Size  int64  `json:"s"`
	MTime int64  `json:"m"`
	Hash  string `json:"h,omitempty"` // "" until it was verified
	blockSummary
}

// acceptedHoles is damage that the operator has agreed to serve with.
type acceptedHoles struct {
	At     time.Time `json:"at"`
	Damage []Damage  `json:"damage"`
}

// OpenLedger reads the ledger of a folder. One that is missing or spoiled is empty:
// then everything is read.
func OpenLedger(dir string) (*Ledger, error) {
	l := &Ledger{file: filepath.Join(dir, ledgerFile)}
	l.d = ledgerData{Version: ledgerVersion}
	fi, err := os.Stat(l.file)
	var raw []byte
	if err == nil && fi.Size() <= maxLedger {
		raw, err = os.ReadFile(l.file)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrStore, err)
	}
	body, sum, _ := strings.Cut(string(raw), "\n")
	want := sha256.Sum256([]byte(body))
	var d ledgerData
	if strings.TrimSpace(sum) == hex.EncodeToString(want[:]) && json.Unmarshal([]byte(body), &d) == nil && d.Version == ledgerVersion {
		l.d = d
	}
	return l, nil
}

// Save writes the ledger, synced and in one step.
func (l *Ledger) Save() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	body, err := json.Marshal(l.d)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(body)
	if err := os.MkdirAll(filepath.Dir(l.file), 0o700); err != nil {
		return fmt.Errorf("%w: %w", ErrStore, err)
	}
	return writeSynced(l.file, append(append(body, '\n'), hex.EncodeToString(sum[:])+"\n"...))
}

// Running marks that a server is about to write to the store: what Seal said is over.
func (l *Ledger) Running() error {
	l.mu.Lock()
	l.d.Sealed, l.d.Boot = false, bootID()
	l.mu.Unlock()
	return l.Save()
}

// Seal checks the store that o describes after its server has stopped, what is new
// since the last check that is, and remembers every block with its size and hash. If
// ctx ends first, or there is damage, the next start judges the store as after an
// abrupt end. Call it while nobody else can open the store.
func (l *Ledger) Seal(ctx context.Context, o Options) (*Report, error) {
	o.Ledger, o.Full = l, false
	rep, err := Check(ctx, o)
	l.mu.Lock()
	l.d.Sealed, l.d.Boot = err == nil, bootID()
	l.mu.Unlock()
	return rep, errors.Join(err, l.Save())
}

// known returns what is known of a folder, by block, and whether the stop was orderly.
func (l *Ledger) known(folder string) (map[uint32]knownBlock, bool) {
	if l == nil {
		return nil, false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	list, ok := l.d.Folders[folder]
	out := make(map[uint32]knownBlock, len(list))
	for _, k := range list {
		out[k.Index] = k
	}
	return out, ok && l.d.Sealed
}

func (l *Ledger) remember(folder string, blocks []knownBlock) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.d.Folders == nil {
		l.d.Folders = map[string][]knownBlock{}
	}
	l.d.Folders[folder] = blocks
}

// keep drops folders that are no more.
func (l *Ledger) keep(folders map[string]bool) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.d.Folders, func(name string, _ []knownBlock) bool { return !folders[name] })
}

// Forget drops what is known of a folder that was set aside.
func (l *Ledger) Forget(folder string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.d.Folders, folder)
}

// rebooted reports whether the machine may have lost its page cache since the ledger
// was written.
func (l *Ledger) rebooted() bool {
	if l == nil {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := bootID()
	return now == "" || l.d.Boot != now
}

// Accept records that the operator serves r as it is, so that the same damage does not
// stop the next start. Call Save.
func (l *Ledger) Accept(r *Replica, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.d.Accepted == nil {
		l.d.Accepted = map[string]acceptedHoles{}
	}
	delete(l.d.Folders, r.Dir)
	a := l.d.Accepted[r.Owner()]
	a.At = now
	a.Damage = append(a.Damage, r.Damage...)
	if len(a.Damage) > maxDamages {
		a.Damage = a.Damage[len(a.Damage)-maxDamages:]
	}
	l.d.Accepted[r.Owner()] = a
}

// Accepted returns what was accepted, as text by account/stream.
func (l *Ledger) Accepted() map[string]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[string]string{}
	for id, a := range l.d.Accepted {
		text := make([]string, 0, len(a.Damage))
		for _, d := range a.Damage {
			text = append(text, d.String())
		}
		out[id] = "accepted " + a.At.UTC().Format(time.RFC3339) + ": " + strings.Join(text, "; ")
	}
	return out
}

// covered reports whether a hole lies in damage that was accepted: the server truncates
// a damaged block, so what was damage in a block is a gap at the next start. It may be
// wider than what was named, up to the end of that block, but it begins there.
func (l *Ledger) covered(owner string, from uint64) bool {
	if l == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, d := range l.d.Accepted[owner].Damage {
		if d.From > 0 && from >= d.From && (d.To == 0 || from <= d.To+1) {
			return true
		}
	}
	return false
}

func contentHash(raw []byte) string {
	sum := highwayhash.Sum128(raw, contentKey[:])
	return hex.EncodeToString(sum[:])
}

// writeSynced replaces file by data: written beside it, synced, renamed, folder synced.
func writeSynced(file string, data []byte) error {
	if err := durablefile.Replace(file, data, 0o600); err != nil {
		return fmt.Errorf("%w: %w", ErrStore, err)
	}
	return nil
}

func syncDir(dir string) error {
	if err := durablefile.SyncDir(dir); err != nil {
		return fmt.Errorf("%w: sync %s: %w", ErrStore, dir, err)
	}
	return nil
}

// bootID tells one run of the machine from the next; "" where that cannot be known.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

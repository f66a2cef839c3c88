package integrity

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/minio/highwayhash"
)

// maxMeta bounds what is read of a small file: configurations are some KiB, states of
// consumers and Raft snapshots are bounded by what they count.
const maxMeta = 1 << 30

// meta is what of a stream's configuration decides which holes are legal.
type meta struct {
	Name       string            `json:"name"`
	Retention  string            `json:"retention"`
	Discard    string            `json:"discard"`
	MaxMsgs    int64             `json:"max_msgs"`
	MaxBytes   int64             `json:"max_bytes"`
	MaxAge     time.Duration     `json:"max_age"`
	MaxPer     int64             `json:"max_msgs_per_subject"`
	Replicas   int               `json:"num_replicas"`
	FirstSeq   uint64            `json:"first_seq"`
	Mirror     json.RawMessage   `json:"mirror"`
	DenyDelete bool              `json:"deny_delete"`
	DenyPurge  bool              `json:"deny_purge"`
	Rollup     bool              `json:"allow_rollup_hdrs"`
	TTL        bool              `json:"allow_msg_ttl"`
	Schedules  bool              `json:"allow_msg_schedules"`
	Metadata   map[string]string `json:"metadata"`
}

// appendOnly: only age and limits take messages out, from the head.
func (m *meta) appendOnly() bool {
	return m.Retention == "limits" && m.DenyDelete && m.DenyPurge && m.MaxPer <= 0 &&
		!m.Rollup && !m.TTL && !m.Schedules && len(m.Mirror) == 0
}

// trims reports whether limits other than age may take messages from the head.
func (m *meta) trims() bool { return m.Discard == "old" && (m.MaxMsgs > 0 || m.MaxBytes > 0) }

// meta verifies meta.inf against meta.sum, which is the hash of the file as it is on
// disk, and opens it. A server that finds them in disagreement leaves the whole stream
// out.
func (c *check) meta(r *Replica, dir string, f folder) (*meta, *lock, error) {
	m := &meta{}
	raw, sum, err := readMeta(dir)
	if err != nil {
		return nil, nil, err
	}
	lock, err := f.vault.open(filepath.Join(dir, metaKey), f.name)
	if err != nil {
		return nil, nil, err
	}
	if c.unfinished(f, lock) && blockBytes(filepath.Join(dir, "msgs")) == 0 {
		r.note("%s: made and not finished, its key never reached the disk; it holds nothing and is made anew", r.Dir)
		return m, nil, remove(dir, metaKey, "meta.inf", "meta.sum")
	}
	text, whole := lock.text(raw)
	_, sealed := c.Ledger.known(f.rel) // after an orderly stop no change was cut short
	switch {
	case len(raw) == 0 || len(sum) == 0:
		// Made and not finished; the server writes it anew if there is nothing else.
		if blockBytes(filepath.Join(dir, "msgs")) > 0 {
			r.damage(Damage{Kind: KindMeta, File: "meta.inf", Detail: "missing or empty beside stored messages"})
		} else {
			r.note("%s: made and not finished, it holds nothing", r.Dir)
		}
	case !matchesSum(raw, sum, f.name) && whole && !sealed && cutUpdate(dir, text):
		if c.live {
			break // the server is about to write it
		}
		if err := os.WriteFile(filepath.Join(dir, "meta.sum"), sumOf(raw, f.name), 0o600); err != nil {
			return nil, nil, fmt.Errorf("%w: %w", ErrStore, err)
		}
		r.note("%s: the server ended while it changed the configuration; the new one stands, and the policy is held against it", r.Dir)
	case !matchesSum(raw, sum, f.name):
		r.damage(Damage{Kind: KindMeta, File: "meta.inf", Detail: "it does not match meta.sum"})
	}
	if lock != nil && lock.bad {
		r.damage(Damage{Kind: KindKey, File: metaKey, Detail: "it does not open: it is damaged, or of another store"})
	} else if !whole && !r.Damaged() {
		r.damage(Damage{Kind: KindMeta, File: "meta.inf", Detail: "it does not decrypt"})
	}
	if len(raw) > 0 && json.Unmarshal(text, m) != nil {
		*m, r.unsure = meta{}, true
		if f.vault != nil && lock == nil {
			r.damage(Damage{Kind: KindKey, File: metaKey, Detail: "it is not there"})
		} else if !r.Damaged() {
			r.damage(Damage{Kind: KindMeta, File: "meta.inf", Detail: "it is no configuration"})
		}
	}
	return m, lock, nil
}

// cutUpdate tells a change of the configuration that was cut short from damage: the
// server writes meta.inf and then meta.sum, so after a cut meta.inf is the younger
// one, and whole. What rots keeps its times.
func cutUpdate(dir string, raw []byte) bool {
	inf, err := os.Stat(filepath.Join(dir, "meta.inf"))
	if err != nil {
		return false
	}
	sum, err := os.Stat(filepath.Join(dir, "meta.sum"))
	if err != nil || !inf.ModTime().After(sum.ModTime()) {
		return false
	}
	var name struct {
		Name string `json:"name"`
	}
	return json.Unmarshal(raw, &name) == nil && name.Name == filepath.Base(dir)
}

func readMeta(dir string) (raw, sum []byte, err error) {
	raw, err = readSmall(filepath.Join(dir, "meta.inf"))
	if err == nil {
		sum, err = readSmall(filepath.Join(dir, "meta.sum"))
	}
	return raw, sum, err
}

// readSmall returns nothing for a file that is not there.
func readSmall(file string) ([]byte, error) {
	fi, err := os.Stat(file)
	if err == nil && fi.Size() > maxMeta {
		return nil, fmt.Errorf("%w: %s has %d bytes", ErrStore, file, fi.Size())
	}
	var b []byte
	if err == nil {
		b, err = os.ReadFile(file)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStore, err)
	}
	return b, nil
}

func matchesSum(raw, sum []byte, key string) bool { return string(sumOf(raw, key)) == string(sum) }

// sumOf is what meta.sum holds for raw.
func sumOf(raw []byte, key string) []byte {
	k := sha256.Sum256([]byte(key))
	h, err := highwayhash.NewDigest64(k[:])
	if err != nil {
		return nil // of a key with another length only
	}
	_, _ = h.Write(raw)
	return hex.AppendEncode(nil, h.Sum(nil))
}

// consumers verifies the configurations of consumers, and that their states look
// like such: nats-server keeps no checksum of a state, so a number in it that has
// changed cannot be seen. In an encrypted store it can: there a state has a tag.
func (c *check) consumers(r *Replica, dir string, f folder) error {
	names, err := subfolders(filepath.Join(dir, "obs"))
	if err != nil {
		return err
	}
	for _, n := range names {
		cdir := filepath.Join(dir, "obs", n)
		lock, err := f.vault.open(filepath.Join(cdir, metaKey), f.name+"."+n)
		if err != nil {
			return err
		}
		raw, sum, err := readMeta(cdir)
		if err != nil {
			return err
		}
		bad := func(kind Kind, file, detail string) {
			r.damage(Damage{Kind: kind, File: path.Join("obs", n, file), Detail: detail})
		}
		text, whole := lock.text(raw)
		switch {
		case c.unfinished(f, lock):
			r.note("consumer %s: made and not finished, its key never reached the disk; it is removed", n)
			if err := remove(filepath.Dir(cdir), n); err != nil {
				return err
			}
			continue
		case lock != nil && lock.bad:
			bad(KindKey, metaKey, "it does not open: it is damaged, or of another store")
			continue
		case len(raw) == 0 || len(sum) == 0:
			r.note("consumer %s: made and not finished", n)
		case !matchesSum(raw, sum, f.name+"/"+n):
			bad(KindConsumer, "meta.inf", "it does not match meta.sum")
		case f.vault != nil && lock == nil && !json.Valid(text):
			bad(KindKey, metaKey, "it is not there")
			continue
		case !whole:
			bad(KindConsumer, "meta.inf", "it does not decrypt")
		}
		state, err := readSmall(filepath.Join(cdir, "o.dat"))
		if err != nil {
			return err
		}
		state, whole = lock.text(state)
		if !whole || len(state) > 0 && (len(state) < 2 || state[0] != 22 || state[1] < 1 || state[1] > 2) {
			bad(KindConsumer, "o.dat", "it is no state of a consumer")
		}
	}
	return nil
}

// checkSnapshots verifies the snapshots of a Raft group: the server refuses to start
// with a damaged one.
func checkSnapshots(r *Replica, dir, group string) error {
	list, err := os.ReadDir(filepath.Join(dir, "snapshots"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrStore, err)
	}
	key := sha256.Sum256([]byte(group))
	for _, e := range list {
		if !strings.HasPrefix(e.Name(), "snap.") || strings.HasSuffix(e.Name(), ".tmp") {
			continue
		}
		raw, err := readSmall(filepath.Join(dir, "snapshots", e.Name()))
		if err != nil {
			return err
		}
		h, err := highwayhash.NewDigest64(key[:])
		if err != nil {
			return err
		}
		body := raw[:max(len(raw)-hashSize, 0)]
		_, _ = h.Write(body)
		if len(raw) < 28 || !bytes.Equal(h.Sum(nil), raw[len(body):]) {
			r.damage(Damage{Kind: KindSnapshot, File: path.Join("snapshots", e.Name()), Detail: "it does not match its checksum"})
			continue
		}
		r.snapshotLast = max(r.snapshotLast, snapshotLast(body))
	}
	return nil
}

// snapshotLast reads from the snapshot of a stream's Raft group (term, index, length
// and bytes of the peers, state) the last sequence that the stream had. It is 0 for
// other snapshots.
func snapshotLast(b []byte) uint64 {
	const head, magic = 20, 42
	peers := uint64(binary.LittleEndian.Uint32(b[16:]))
	if peers > uint64(len(b)-head) {
		return 0
	}
	state := b[head+peers:]
	if len(state) < 2 || state[0] != magic {
		return 0
	}
	r := cursor{b: state[2:]}
	r.uint() // messages
	r.uint() // bytes
	r.uint() // first sequence
	last := r.uint()
	if r.bad {
		return 0
	}
	return last
}

// compareSnapshots holds streams against the snapshots of their Raft groups. The server
// syncs a stream before it writes its snapshot and throws the log away behind it, so a
// stream that ends before its snapshot has lost something that no replay brings back.
func compareSnapshots(replicas []Replica) {
	for i := range replicas {
		group := &replicas[i]
		if group.Group == "" || group.Consumer != "" || group.snapshotLast == 0 {
			continue
		}
		for k := range replicas {
			if s := &replicas[k]; s.Group == "" && s.Owner() == group.Owner() && s.LastSeq < group.snapshotLast {
				s.damage(Damage{Kind: KindTail, File: "msgs", From: s.LastSeq + 1, To: group.snapshotLast, Detail: "the Raft snapshot has seen them"})
			}
		}
	}
}

package integrity

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

// Errors of the package.
var (
	// ErrStore wraps what the file system says while a store is read.
	ErrStore = errors.New("integrity: the store cannot be read")
	// ErrDamaged: the report holds damage that nobody has accepted.
	ErrDamaged = errors.New("integrity: the store is damaged")
	// ErrQuarantineFull: SetAside refuses once MaxQuarantined folders are kept.
	ErrQuarantineFull = errors.New("integrity: the quarantine is full")
)

// Kind says what is wrong in one place of a store.
type Kind string

// The kinds of damage.
const (
	KindChecksum    Kind = "checksum"     // a record's bytes are not those that were written
	KindStructure   Kind = "structure"    // lengths, header block or subject of a record cannot be
	KindTruncated   Kind = "truncated"    // a block ends inside a record, and not where an append may have been cut
	KindZeroed      Kind = "zeroed"       // zeros where records were
	KindUndecodable Kind = "undecodable"  // a compressed block does not decompress
	KindMissing     Kind = "missing"      // a block is not there, or sequences are in no block
	KindHead        Kind = "missing-head" // the first sequences are gone, and not by age or limit
	KindTail        Kind = "missing-tail" // the last sequences are gone
	KindOrder       Kind = "out-of-order" // sequences do not rise
	KindChanged     Kind = "changed"      // a block differs from what was verified before
	KindMeta        Kind = "meta"         // meta.inf and meta.sum disagree, or one is missing
	KindSnapshot    Kind = "snapshot"     // a Raft snapshot does not match its checksum
	KindConsumer    Kind = "consumer"     // the state of a consumer cannot be read
	KindKey         Kind = "key"          // a key file of an encrypted store does not open, or is missing
)

// Damage is one place. From and To are the sequences that cannot be read there, both
// inclusive; To is 0 where the end is not known, both are 0 where no message is concerned.
type Damage struct {
	Kind     Kind   `json:"kind"`
	File     string `json:"file"`             // relative to the checked folder
	Offset   int64  `json:"offset,omitempty"` // of the record, in the block (decompressed, if it was compressed)
	From, To uint64
	Detail   string `json:"detail,omitempty"`
}

func (d Damage) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s in %s", d.Kind, d.File)
	if d.Offset > 0 {
		fmt.Fprintf(&b, " at byte %d", d.Offset)
	}
	switch {
	case d.From == 0:
	case d.To == 0:
		fmt.Fprintf(&b, ", sequences from %d", d.From)
	case d.To <= d.From:
		fmt.Fprintf(&b, ", sequence %d", d.From)
	default:
		fmt.Fprintf(&b, ", sequences %d to %d", d.From, d.To)
	}
	if d.Detail != "" {
		fmt.Fprintf(&b, " (%s)", d.Detail)
	}
	return b.String()
}

// maxDamages bounds what is kept of one stream; More counts the rest.
const maxDamages = 64

// Replica is what was found in one folder: a stream, or a Raft group.
type Replica struct {
	Account  string // "" for a group that belongs to the cluster as a whole (meta)
	Stream   string // the stream it is of; "" for the meta group
	Consumer string // set for the group of a consumer
	Group    string // name of the Raft group; "" for a stream's own folder
	Dir      string // relative to the checked folder
	Replicas int    // as configured; 1 if that cannot be read

	// AppendOnly: nothing but age and limits may take messages out, and only at the
	// head, so the sequences must be without holes.
	AppendOnly        bool
	Blocks            int
	Bytes             int64
	FirstSeq, LastSeq uint64 // on disk; messages past their age may still be there
	Messages          uint64 // records on disk, those that were deleted logically included

	// Holes counts sequences that are missing for a reason that is known: accepted by
	// the operator, or never acknowledged.
	Holes uint64

	Damage []Damage
	More   int      // damages beyond those in Damage
	Notes  []string // what is odd and harmless, for the log

	unsure       bool   // Replicas is a guess: the configuration cannot be read
	snapshotLast uint64 // of the group of a stream: its last sequence at the latest snapshot
}

// ID names the replica in logs and quarantine: account/stream, or the group's name.
func (r *Replica) ID() string {
	if r.Group != "" {
		return r.Group
	}
	return r.Account + "/" + r.Stream
}

// Owner is account/stream of the stream that the replica belongs to; "" for the meta
// group and for a group whose labels are damaged.
func (r *Replica) Owner() string {
	if r.Stream == "" {
		return ""
	}
	return r.Account + "/" + r.Stream
}

func (r *Replica) damage(d Damage) {
	if !strings.HasPrefix(d.File, r.Dir) {
		d.File = path.Join(r.Dir, d.File)
	}
	if len(r.Damage) >= maxDamages {
		r.More++
		return
	}
	r.Damage = append(r.Damage, d)
}

func (r *Replica) note(format string, args ...any) {
	if len(r.Notes) < maxDamages {
		r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
	}
}

// Damaged reports whether anything was found.
func (r *Replica) Damaged() bool { return len(r.Damage) > 0 }

// Report is what Check found.
type Report struct {
	Replicas []Replica // streams first, then Raft groups, each by name
	Read     int64     // bytes that were read and verified
	Trusted  int64     // bytes of blocks that were verified earlier and not read now
	Notes    []string
}

// Damaged returns the replicas with damage.
func (r *Report) Damaged() []*Replica {
	var out []*Replica
	for i := range r.Replicas {
		if r.Replicas[i].Damaged() {
			out = append(out, &r.Replicas[i])
		}
	}
	return out
}

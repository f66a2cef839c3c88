package backupfile

import (
	"encoding/json"
	"errors"
	"regexp"
	"strings"
	"time"

	"github.com/signetbus/signet/internal/wire"
)

// Version of the format. A reader refuses every other.
const Version = 1

// PayloadType is the DSSE payload type of the signed manifest.
const PayloadType = "application/vnd.signet.backup.v1+json"

// Extension is how the names of backup files end.
const Extension = ".signetbackup"

// magic begins every file; its last byte is the version.
const magic = "SIGNETBK\x00\x00\x00\x01"

// The frames. A frame is its type, the length of its body in four bytes, big
// endian, and the body.
const (
	frameHead     = 'H' // Head as JSON; the first
	frameStream   = 'S' // StreamHead as JSON
	frameData     = 'D' // the next bytes of the stream's archive
	frameEnd      = 'E' // end of the stream's archive; empty
	frameManifest = 'M' // the signed Manifest; the last

	frameHeadBytes = 5
)

// Limits of a file, in bytes where nothing else is said.
const (
	MaxHeadBytes     = 4 << 20
	MaxConfigBytes   = 1 << 20
	MaxDataBytes     = 1 << 20
	MaxManifestBytes = 4 << 20
	MaxStreams       = 10_000

	maxStateBytes    = 1 << 20
	maxConsumerBytes = 16 << 20
	maxConsumers     = 100_000
	maxMessageBytes  = 65 << 20 // a payload and its headers, at their largest
	maxHeaderBytes   = 1 << 20
)

// Errors of this package. All of them mean that the file must not be restored.
var (
	// ErrFormat: not a backup, a broken one, or one that ends too early.
	ErrFormat = errors.New("backupfile: not a whole backup")
	// ErrVersion: a backup of another version of the format.
	ErrVersion = errors.New("backupfile: unknown version of the format")
	// ErrForeign: the keyring of the backup is not signed by the trusted root.
	ErrForeign = errors.New("backupfile: a snapshot from another cluster")
	// ErrChanged: what is in the file is not what the broker signed.
	ErrChanged = errors.New("backupfile: the backup was changed")
	// ErrNotProven: a stored event does not verify.
	ErrNotProven = errors.New("backupfile: a stored event does not verify")
	// ErrTooLarge: something in the file is over its limit.
	ErrTooLarge = errors.New("backupfile: over a limit")
)

// Head says where a backup comes from. Nothing of it may be believed before the
// manifest has verified.
type Head struct {
	Version int       `json:"version"`
	ID      string    `json:"id"` // random, 32 hexadecimal digits
	Tenant  string    `json:"tenant"`
	Node    string    `json:"node"`    // the broker that made it
	Created time.Time `json:"created"` // by its clock, whole seconds, UTC
	Policy  string    `json:"policy"`  // digest of the policy in force
	Root    string    `json:"root"`    // public root key of the cluster
	Keyring []byte    `json:"keyring"` // the signed keyring document in force
}

// StreamHead begins a stream.
type StreamHead struct {
	Name   string          `json:"name"`
	Config json.RawMessage `json:"config"` // of the stream when it was saved; a restore takes the policy's
}

// Stream is what the manifest says of one stream.
type Stream struct {
	Name         string `json:"name"`
	FirstSeq     uint64 `json:"firstSeq"` // of the messages in the backup; 0: there are none
	LastSeq      uint64 `json:"lastSeq"`
	EndSeq       uint64 `json:"endSeq"` // last sequence that the stream had given out
	Messages     uint64 `json:"messages"`
	Bytes        uint64 `json:"bytes"` // of headers and payloads
	Consumers    int    `json:"consumers"`
	ArchiveBytes uint64 `json:"archiveBytes"`
	SHA256       string `json:"sha256"` // of the archive, hexadecimal
}

// Manifest is what the broker signs. Bytes and SHA256 are of the whole file before
// the frame of the manifest, so nothing in it can change unseen.
type Manifest struct {
	Version int       `json:"version"`
	ID      string    `json:"id"`
	Tenant  string    `json:"tenant"`
	Node    string    `json:"node"`
	Created time.Time `json:"created"`
	Policy  string    `json:"policy"`
	Root    string    `json:"root"`
	Streams []Stream  `json:"streams"`
	Bytes   uint64    `json:"bytes"`
	SHA256  string    `json:"sha256"`
}

// Kind is what a stream holds.
type Kind string

// The kinds.
const (
	KindEvents Kind = "events" // attested events
	KindDLQ    Kind = "dead letters"
	KindRetry  Kind = "retry queues"
	KindKV     Kind = "key-value"
	KindObject Kind = "objects"
)

// KindOf tells the kind from the name, which the policy's grammar reserves.
func KindOf(stream string) Kind {
	switch {
	case stream == wire.StreamDLQ:
		return KindDLQ
	case stream == wire.StreamRetry:
		return KindRetry
	case strings.HasPrefix(stream, prefixKV):
		return KindKV
	case strings.HasPrefix(stream, prefixObject):
		return KindObject
	}
	return KindEvents
}

const (
	prefixKV     = "KV_"
	prefixObject = "OBJ_"
)

var (
	plainStream   = regexp.MustCompile(`^[A-Za-z0-9_-]{1,80}$`)
	plainConsumer = regexp.MustCompile(`^[^\x00-\x20\x7f.*>/\\]{1,255}$`)
	hexID         = regexp.MustCompile(`^[0-9a-f]{32}$`)
)

// PlainStream reports whether s may be the name of a stream in a backup.
func PlainStream(s string) bool { return plainStream.MatchString(s) }

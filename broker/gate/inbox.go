package gate

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"hash/maphash"
	"strings"
	"sync"
	"time"

	"github.com/signetbus/signet/internal/wire"
)

// maxReply is the longest reply subject in bytes, as the server sees it.
const maxReply = 255

// inbox maps between the inboxes a client names and those the server sees. It is
// immutable.
type inbox struct {
	token string // 128 random bits, one subject token
	up    string // _INBOX.<token>.

	// Where the acknowledgements go that are to be signed. The client can neither
	// publish nor subscribe there: what it names as an inbox has the token in front,
	// and nobody is handed these.
	acks   string // _INBOX.<another token>.
	ackSID string // of the gate's own subscription to them; as hard to guess
}

func newInbox() inbox {
	token, acks := newToken(), newToken()
	return inbox{token: token, up: wire.PrefixInbox + token + ".", acks: wire.PrefixInbox + acks + ".", ackSID: acks}
}

func newToken() string {
	var raw [16]byte
	rand.Read(raw[:]) // never fails (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(raw[:])
}

// isInbox reports whether s is in the inbox space.
func isInbox(s []byte) bool { return hasPrefix(s, wire.PrefixInbox) }

// own reports whether an upstream subject is an inbox of this connection.
func (b *inbox) own(s []byte) bool { return hasPrefix(s, b.up) }

// appendUp appends the upstream form of the inbox subject or filter s, which starts
// with _INBOX. and is not empty after it. A subject that has the token already is
// left as it is.
func (b *inbox) appendUp(dst, s []byte) []byte {
	if b.own(s) {
		return append(dst, s...)
	}
	dst = append(dst, b.up...)
	return append(dst, s[len(wire.PrefixInbox):]...)
}

// appendDown appends what the client may see of an upstream subject.
func (b *inbox) appendDown(dst, s []byte) []byte {
	if !b.own(s) {
		return append(dst, s...)
	}
	dst = append(dst, wire.PrefixInbox...)
	return append(dst, s[len(b.up):]...)
}

// replyProblem says why s may not be the reply subject of a publish, empty if it
// may. s is as the client wrote it.
func (b *inbox) replyProblem(s []byte) string {
	switch {
	case !isInbox(s):
		return "the reply subject is not an inbox"
	case wire.CheckRawSubject(s, false) != nil || bytes.IndexByte(s, '*') >= 0 || bytes.IndexByte(s, '>') >= 0:
		return "the reply subject is not literal"
	case len(s)+len(b.token)+1 > maxReply:
		return "the reply subject is too long"
	}
	return ""
}

// isControl reports whether a reply subject is the control channel of a fast batch: its
// last tokens are commands to the stream.
func isControl(s []byte) bool { return bytes.HasSuffix(s, []byte(".$FI")) }

const controlProblem = "the reply subject is a control channel"

// mapReply is appendUp for the read guard; false if s may not be a reply subject.
func (b *inbox) mapReply(s string) (string, bool) {
	if b.replyProblem([]byte(s)) != "" || isControl([]byte(s)) {
		return "", false
	}
	if strings.HasPrefix(s, b.up) {
		return s, true
	}
	return b.up + s[len(wire.PrefixInbox):], true
}

// scrub takes the session token out of a text for the client.
func (b *inbox) scrub(line []byte) []byte {
	if !bytes.Contains(line, []byte(b.token)) {
		return line
	}
	return []byte(strings.ReplaceAll(string(line), b.token+".", ""))
}

func hasPrefix(s []byte, prefix string) bool {
	return len(s) >= len(prefix) && string(s[:len(prefix)]) == prefix
}

// handed remembers the reply subjects of others that the server delivered to this
// connection: it may answer to them, for a while. It keeps keyed 64-bit hashes, not
// the subjects: they cost no allocation, and whoever could hit one by chance (one
// in 2^51 per try with a full table) would still have to name an inbox that holds
// another connection's 128-bit token. Two generations bound size and age: an entry
// lives between half and the whole of ttl, and is the first to go when the
// connection is handed more than max.
type handed struct {
	mu       sync.Mutex
	seed     maphash.Seed
	max      int
	half     time.Duration
	turned   time.Time
	now, old map[uint64]struct{}
}

func newHanded(maxEntries int, ttl time.Duration) *handed {
	return &handed{seed: maphash.MakeSeed(), max: max(maxEntries/2, 1), half: ttl / 2}
}

// add remembers reply as of now.
func (h *handed) add(reply []byte, now time.Time) {
	sum := maphash.Bytes(h.seed, reply)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.turnLocked(now)
	if len(h.now) >= h.max {
		h.old, h.now, h.turned = h.now, nil, now
	}
	if h.now == nil {
		h.now = make(map[uint64]struct{})
	}
	h.now[sum] = struct{}{}
}

// has reports whether subject was handed to this connection and has not expired.
func (h *handed) has(subject []byte, now time.Time) bool {
	sum := maphash.Bytes(h.seed, subject)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.turnLocked(now)
	if _, ok := h.now[sum]; ok {
		return true
	}
	_, ok := h.old[sum]
	return ok
}

// turnLocked moves to the next generation, or to an empty table after a pause.
func (h *handed) turnLocked(now time.Time) {
	switch age := now.Sub(h.turned); {
	case age < h.half:
	case age < 2*h.half:
		h.old, h.now, h.turned = h.now, nil, now
	default:
		h.old, h.now, h.turned = nil, nil, now
	}
}

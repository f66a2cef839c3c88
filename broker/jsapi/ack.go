package jsapi

import (
	"bytes"
	"crypto/sha256"
	"strconv"
	"strings"
	"time"

	"github.com/signetbus/signet/internal/wire"
)

// maxTermReason bounds the reason of a +TERM, which the server copies into an
// advisory.
const maxTermReason = 256

// Payloads of an ack that carry nothing else, in the server's spelling.
var (
	ackAck      = []byte("+ACK")
	ackProgress = []byte("+WPI")
	ackNext     = []byte("+NXT")
	ackNak      = []byte("-NAK")
	ackTerm     = []byte("+TERM")
)

// Ack reads the stream and the consumer out of an ack subject by shape alone:
//
//	$JS.ACK.<stream>.<consumer>.<deliveries>.<sseq>.<dseq>.<time>.<pending>                     9 tokens
//	$JS.ACK.<domain>.<account>.<stream>.<consumer>.<deliveries>.<sseq>.<dseq>.<time>.<pending>…  11 or more
//
// The server listens on both forms whatever its feature flags say, and gives 11
// tokens the second meaning only. Any other count is not an ack. It does not
// check domain and account (Judge does), and does not allocate.
func Ack(subject string) (stream, consumer string, ok bool) {
	stream, consumer, _, _, ok = splitAck(subject)
	return stream, consumer, ok
}

// splitAck also returns domain and account, both empty in the 9-token form.
func splitAck(subject string) (stream, consumer, domain, account string, ok bool) {
	rest, found := strings.CutPrefix(subject, wire.PrefixJSAck)
	if !found {
		return "", "", "", "", false
	}
	return splitNames(rest, strings.Count(rest, ".")+1, 7, 9, true)
}

// splitFlow is splitAck for $JS.FC.<stream>.<consumer>.<x> (5 tokens) and
// $JS.FC.<domain>.<account>.<stream>.<consumer>.<x> (7 tokens).
func splitFlow(subject string) (stream, consumer, domain, account string, ok bool) {
	rest, found := strings.CutPrefix(subject, wire.PrefixJSFC)
	if !found {
		return "", "", "", "", false
	}
	return splitNames(rest, strings.Count(rest, ".")+1, 3, 5, false)
}

// splitNames takes the names from the front of rest: exactly short tokens begin
// with stream and consumer; long tokens (or more, if extra) with domain and account.
func splitNames(rest string, tokens, short, long int, extra bool) (stream, consumer, domain, account string, ok bool) {
	switch {
	case tokens == short:
	case tokens == long || extra && tokens > long:
		domain, rest, _ = strings.Cut(rest, ".")
		account, rest, _ = strings.Cut(rest, ".")
		if domain == "" || account == "" {
			return "", "", "", "", false
		}
	default:
		return "", "", "", "", false
	}
	stream, rest, _ = strings.Cut(rest, ".")
	consumer, _, _ = strings.Cut(rest, ".")
	return stream, consumer, domain, account, validToken(stream) && validToken(consumer)
}

// accountHash is nats-server's getHash of an account name: it stands in ack and
// flow control subjects of the long form.
func accountHash(name string) string {
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	sum := sha256.Sum256([]byte(name))
	var b [8]byte
	for i := range b {
		b[i] = digits[int(sum[i])%len(digits)]
	}
	return string(b[:])
}

// ackBody returns the canonical form of an ack payload and whether it asks for
// another delivery (+NXT). Unknown payloads are refused: the server ignores them
// and yet answers the reply subject as if they had been an ack.
func ackBody(body []byte) (canonical []byte, next, ok bool) {
	switch {
	case len(body) == 0:
		return nil, false, true
	case bytes.Equal(body, ackAck), string(body) == "+OK":
		return ackAck, false, true
	case bytes.Equal(body, ackProgress):
		return ackProgress, false, true
	case bytes.HasPrefix(body, ackNext):
		req, ok := nextBody(body[len(ackNext):])
		if !ok || len(req) == 0 {
			return ackNext, true, ok
		}
		return append([]byte("+NXT "), req...), true, true
	case bytes.HasPrefix(body, ackNak):
		canonical, ok = nakBody(bytes.TrimSpace(body[len(ackNak):]))
		return canonical, false, ok
	case bytes.HasPrefix(body, ackTerm):
		canonical, ok = termBody(bytes.TrimSpace(body[len(ackTerm):]))
		return canonical, false, ok
	}
	return nil, false, false
}

// nakBody reads the delay: JSON {"delay":ns} or a Go duration, as the server does.
func nakBody(arg []byte) ([]byte, bool) {
	if len(arg) == 0 {
		return ackNak, true
	}
	var n nak
	if arg[0] == '{' {
		if decodeStrict(arg, &n) != nil {
			return nil, false
		}
	} else {
		d, err := time.ParseDuration(string(arg))
		if err != nil {
			return nil, false
		}
		n.Delay = int64(d)
	}
	if n.Delay < 0 {
		return nil, false
	}
	return append([]byte("-NAK "), encode(&n)...), true
}

func termBody(reason []byte) ([]byte, bool) {
	if len(reason) == 0 {
		return ackTerm, true
	}
	if len(reason) > maxTermReason || !printable(string(reason)) {
		return nil, false
	}
	return append([]byte("+TERM "), reason...), true
}

// nextBody returns the canonical form of a pull request: empty, a number (the
// batch), or JSON. The server reads anything else as "one message"; the guard
// refuses it.
func nextBody(body []byte) ([]byte, bool) {
	body = bytes.TrimSpace(body)
	if len(body) == 0 {
		return nil, true
	}
	var n getNext
	if body[0] == '{' {
		if decodeStrict(body, &n) != nil {
			return nil, false
		}
	} else {
		batch, err := strconv.Atoi(string(body))
		if err != nil {
			return nil, false
		}
		n.Batch = batch
	}
	if n.check() != nil {
		return nil, false
	}
	return encode(&n), true
}

package translog

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/signetbus/signet/internal/wire"
)

// Upstream is the embedded server as a feed sees it: *embed.Server.
type Upstream interface {
	HasAccount(account string) bool
	Dial(ctx context.Context) (net.Conn, error)
	// Connecting keeps reloads of the server away until done is called.
	Connecting() (done func())
	Ticket(account string, publish, subscribe []string, local net.Addr) (token string, revoke func())
}

const (
	feedBuffer    = 64 << 10
	feedHeartbeat = time.Second
	// feedSilence is how long a feed may say nothing before it is taken for dead.
	feedSilence = 4 * feedHeartbeat
	maxFrame    = 64 << 20
)

// errFeed: a feed ended; the log opens another.
var errFeed = errors.New("translog: the feed ended")

// message is one stored message. subject, block and data are views that the next call of
// feed.next overwrites.
type message struct {
	seq     uint64
	stored  int64
	subject string
	block   []byte
	data    []byte
	pending uint64 // messages behind it
}

// feed is a stream as it is stored, in order: an ephemeral push consumer without acks,
// which the server keeps in memory on the node that leads the stream and lists nowhere
// (as for the mirror of a stream). It speaks the protocol itself: the header block must
// come byte for byte, and a client library would cost more than the log may.
type feed struct {
	conn    net.Conn
	r       *bufio.Reader
	revoke  func()
	deliver uint64 // consumer sequence of the last message
	buf     []byte
	seen    time.Time // when anything last came
	limit   time.Time // deadline of conn
}

// openFeed starts a feed at the sequence from. filter is a subject, empty for all.
//
// Errors: errFeed, ctx's.
func openFeed(ctx context.Context, up Upstream, account, stream, filter string, from uint64) (f *feed, err error) {
	if !up.HasAccount(account) {
		return nil, fmt.Errorf("%w: the server has no account %s", errFeed, account)
	}
	done := up.Connecting()
	defer done()
	conn, err := up.Dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errFeed, err)
	}
	inbox := wire.PrefixInbox + "log." + rand.Text()
	create := wire.PrefixJSAPI + "CONSUMER.CREATE." + stream
	token, revoke := up.Ticket(account, []string{create, wire.PrefixJSFC + ">"}, []string{inbox + ".*"}, conn.LocalAddr())
	f = &feed{conn: conn, r: bufio.NewReaderSize(conn, feedBuffer), revoke: revoke, seen: time.Now()}
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	if err := conn.SetDeadline(time.Now().Add(feedSilence)); err != nil {
		return nil, fmt.Errorf("%w: %w", errFeed, err)
	}
	body, err := json.Marshal(map[string]any{"stream_name": stream, "config": map[string]any{
		"deliver_subject": inbox + ".d", "deliver_policy": "by_start_sequence", "opt_start_seq": max(from, 1),
		"ack_policy": "none", "max_deliver": 1, "ack_wait": 22 * time.Hour, "replay_policy": "instant",
		"idle_heartbeat": feedHeartbeat, "flow_control": true, "direct": true, "filter_subject": filter,
		"inactive_threshold": 10 * time.Second,
	}})
	if err != nil {
		return nil, err
	}
	// The server notices interest in the literal subject only, not by a wildcard.
	_, err = fmt.Fprintf(conn, "CONNECT {\"auth_token\":%q,\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true,\"lang\":\"signet\",\"version\":\"1\",\"protocol\":1}\r\n"+
		"SUB %s.r 1\r\nPUB %s %s.r %d\r\n%s\r\n", token, inbox, create, inbox, len(body), body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errFeed, err)
	}
	if err := f.awaitCreated(); err != nil {
		return nil, err
	}
	// Deliveries begin with the interest, so none came before the answer.
	if _, err := fmt.Fprintf(conn, "SUB %s.d 2\r\n", inbox); err != nil {
		return nil, fmt.Errorf("%w: %w", errFeed, err)
	}
	return f, nil
}

// awaitCreated reads up to the answer to the request.
func (f *feed) awaitCreated() error {
	fr, err := f.frame()
	if err != nil {
		return err
	}
	var answer struct {
		Error *apiError `json:"error"`
	}
	if json.Unmarshal(fr.data, &answer) != nil { // a status, such as 503
		return fmt.Errorf("%w: the stream does not answer: %.60q", errFeed, fr.block)
	}
	if answer.Error != nil {
		return fmt.Errorf("%w: %w", errFeed, answer.Error)
	}
	return nil
}

// close ends the feed; the server forgets the consumer when nobody listens any more.
func (f *feed) close() {
	_ = f.conn.Close()
	f.revoke()
}

// buffered says whether next has something to read without waiting.
func (f *feed) buffered() bool { return f.r.Buffered() > 0 }

// next returns the next message, or ok false when none came within wait.
//
// Errors: errFeed when the feed is at its end; nothing is lost, open another.
func (f *feed) next(wait time.Duration, m *message) (ok bool, err error) {
	until := time.Now().Add(wait)
	for {
		if !f.buffered() {
			if err := f.conn.SetReadDeadline(until); err != nil {
				return false, fmt.Errorf("%w: %w", errFeed, err)
			}
			var timeout net.Error
			if _, err := f.r.Peek(1); errors.As(err, &timeout) && timeout.Timeout() {
				if time.Since(f.seen) > feedSilence {
					return false, fmt.Errorf("%w: no heartbeat for %s", errFeed, feedSilence)
				}
				return false, nil
			} else if err != nil {
				return false, fmt.Errorf("%w: %w", errFeed, err)
			}
			f.limit = time.Time{}
		}
		// The rest of a frame follows its beginning.
		if now := time.Now(); f.limit.Sub(now) < feedSilence/2 {
			f.limit = now.Add(feedSilence)
			if err := f.conn.SetDeadline(f.limit); err != nil {
				return false, fmt.Errorf("%w: %w", errFeed, err)
			}
		}
		fr, err := f.frame()
		if err != nil {
			return false, err
		}
		f.seen = time.Now()
		if fr.sid == "1" {
			continue
		}
		if bytes.HasPrefix(fr.block, []byte("NATS/1.0 100")) {
			if err := f.control(&fr); err != nil {
				return false, err
			}
			continue
		}
		if bytes.HasPrefix(fr.block, []byte("NATS/1.0 ")) && !bytes.HasPrefix(fr.block, []byte(wire.HeaderLine)) {
			return false, fmt.Errorf("%w: status %.40q", errFeed, fr.block)
		}
		return true, f.take(&fr, m)
	}
}

// take reads the metadata of a delivery from its reply subject.
func (f *feed) take(fr *frame, m *message) error {
	token := strings.Split(fr.reply, ".")
	switch {
	case len(token) == 9:
	case len(token) >= 11:
		token = token[2:]
	default:
		return fmt.Errorf("%w: a delivery without metadata", errFeed)
	}
	var fault error
	number := func(s string) uint64 {
		n, err := strconv.ParseUint(s, 10, 64)
		fault = errors.Join(fault, err)
		return n
	}
	seq, deliver, stored, pending := number(token[5]), number(token[6]), number(token[7]), number(token[8])
	if fault != nil || deliver != f.deliver+1 {
		return fmt.Errorf("%w: delivery %d after %d", errFeed, deliver, f.deliver)
	}
	f.deliver = deliver
	*m = message{seq: seq, stored: int64(stored), subject: fr.subject, block: fr.block, data: fr.data, pending: pending}
	return nil
}

// control answers flow control, and checks that nothing is missing at a heartbeat.
func (f *feed) control(fr *frame) error {
	answer := fr.reply
	for line := range bytes.SplitSeq(fr.block, []byte("\r\n")) {
		name, value, _ := strings.Cut(string(line), ": ")
		switch name {
		case "Nats-Consumer-Stalled":
			answer = value
		case "Nats-Last-Consumer":
			if last, err := strconv.ParseUint(value, 10, 64); err != nil || last > f.deliver {
				return fmt.Errorf("%w: deliveries are missing", errFeed)
			}
		}
	}
	if answer == "" {
		return nil
	}
	if _, err := fmt.Fprintf(f.conn, "PUB %s 0\r\n\r\n", answer); err != nil {
		return fmt.Errorf("%w: %w", errFeed, err)
	}
	return nil
}

// frame is one MSG or HMSG; block and data are views of feed.buf.
type frame struct {
	subject, sid, reply string
	block, data         []byte
}

// frame reads up to the next message and answers pings.
func (f *feed) frame() (frame, error) {
	for {
		line, err := f.r.ReadSlice('\n')
		if err != nil {
			return frame{}, fmt.Errorf("%w: %w", errFeed, err)
		}
		text := string(bytes.TrimRight(line, "\r\n"))
		verb, rest, _ := strings.Cut(text, " ")
		switch verb {
		case "MSG", "HMSG":
			return f.body(verb == "HMSG", strings.Fields(rest))
		case "PING":
			if _, err := io.WriteString(f.conn, "PONG\r\n"); err != nil {
				return frame{}, fmt.Errorf("%w: %w", errFeed, err)
			}
		case "-ERR":
			return frame{}, fmt.Errorf("%w: %s", errFeed, rest)
		}
	}
}

func (f *feed) body(headers bool, field []string) (frame, error) {
	sizes := 1
	if headers {
		sizes = 2
	}
	if len(field) != 2+sizes && len(field) != 3+sizes {
		return frame{}, fmt.Errorf("%w: control line with %d fields", errFeed, len(field))
	}
	fr := frame{subject: field[0], sid: field[1]}
	if len(field) == 3+sizes {
		fr.reply = field[2]
	}
	total, err := strconv.Atoi(field[len(field)-1])
	head := 0
	if headers && err == nil {
		head, err = strconv.Atoi(field[len(field)-2])
	}
	if err != nil || total < 0 || total > maxFrame || head < 0 || head > total {
		return frame{}, fmt.Errorf("%w: sizes of a frame", errFeed)
	}
	if cap(f.buf) < total+2 {
		f.buf = make([]byte, total+2)
	}
	f.buf = f.buf[:total+2]
	if _, err := io.ReadFull(f.r, f.buf); err != nil {
		return frame{}, fmt.Errorf("%w: %w", errFeed, err)
	}
	fr.block, fr.data = f.buf[:head], f.buf[head:total]
	return fr, nil
}

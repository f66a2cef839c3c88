package translog

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
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
	kept    []byte    // a control line of which a frame has views
	subject string    // of the last message: most have the same
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
	var until time.Time
	for {
		if !f.buffered() {
			if until.IsZero() {
				until = time.Now().Add(wait)
			}
			if ok, err := f.await(until); !ok {
				return false, err
			}
		}
		fr, err := f.frame()
		if err != nil {
			return false, err
		}
		switch {
		case string(fr.sid) == "1":
		case len(fr.block) == 0 || bytes.HasPrefix(fr.block, []byte(wire.HeaderLine)):
			return true, f.take(&fr, m)
		case bytes.HasPrefix(fr.block, []byte("NATS/1.0 100")):
			if err := f.control(&fr); err != nil {
				return false, err
			}
		case bytes.HasPrefix(fr.block, []byte("NATS/1.0 ")):
			return false, fmt.Errorf("%w: status %.40q", errFeed, fr.block)
		default:
			return true, f.take(&fr, m)
		}
	}
}

// await waits until there is something to read; ok false: there was nothing until then.
func (f *feed) await(until time.Time) (ok bool, err error) {
	if err := f.conn.SetReadDeadline(until); err != nil {
		return false, fmt.Errorf("%w: %w", errFeed, err)
	}
	f.limit = time.Time{} // what follows is given a time of its own
	var timeout net.Error
	_, err = f.r.Peek(1)
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		if time.Since(f.seen) > feedSilence {
			return false, fmt.Errorf("%w: no heartbeat for %s", errFeed, feedSilence)
		}
		return false, nil
	case err != nil:
		return false, fmt.Errorf("%w: %w", errFeed, err)
	}
	f.seen = time.Now()
	return true, nil
}

// take reads the metadata of a delivery from its reply subject: the last of 9 tokens, or
// of 11 and more from the third on.
func (f *feed) take(fr *frame, m *message) error {
	var number [11]uint64 // by place
	tokens, ok := 0, true
	for rest, more := fr.reply, true; more; tokens++ {
		var token []byte
		if token, rest, more = cut(rest, '.'); tokens >= 5 && tokens < 11 {
			n, digits := decimal(token)
			if number[tokens] = n; !digits && tokens < 9 {
				ok = false // of the longer form these are names
			}
		}
	}
	at := number[5:]
	if tokens >= 11 {
		at, ok = number[7:], true
	}
	seq, deliver, stored, pending := at[0], at[1], at[2], at[3]
	if !ok || tokens != 9 && tokens < 11 || seq == 0 || deliver != f.deliver+1 {
		return fmt.Errorf("%w: delivery %d after %d, reply %.80q", errFeed, deliver, f.deliver, fr.reply)
	}
	f.deliver = deliver
	if f.subject != string(fr.subject) {
		f.subject = string(fr.subject)
	}
	*m = message{seq: seq, stored: int64(stored), subject: f.subject, block: fr.block, data: fr.data, pending: pending}
	return nil
}

// control answers flow control, and checks that nothing is missing at a heartbeat.
func (f *feed) control(fr *frame) error {
	answer := string(fr.reply)
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
	return f.answer("PUB " + answer + " 0\r\n\r\n")
}

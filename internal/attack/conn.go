package attack

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/signetbus/signet/internal/wire"
)

// maxFrame bounds what is read of one message: the other side is attacked, not trusted.
const maxFrame = 8 << 20

// frame is one thing that the broker sent.
type frame struct {
	verb                string // INFO, MSG, PONG, -ERR, +OK
	text                string // what follows the verb of INFO and -ERR
	subject, reply, sid string
	header, body        string
}

// conn is one connection that speaks the protocol by hand. It is for one goroutine.
type conn struct {
	net.Conn
	r     *bufio.Reader
	info  hello
	inbox string // of requests, without the last token
	sids  int
	asked int
	heard []frame // messages that came while something else was waited for
	errs  []string
	asks  bool // the handshake asked for a certificate
}

// hello is what attacks need of INFO.
type hello struct {
	ServerName string `json:"server_name"`
	Nonce      string `json:"nonce"`
	TLS        bool   `json:"tls_required"`
	MayTLS     bool   `json:"tls_available"`
	MaxPayload int    `json:"max_payload"`
}

func newConn(nc net.Conn) *conn {
	return &conn{Conn: nc, r: bufio.NewReaderSize(nc, 64<<10), inbox: "_INBOX." + token()}
}

// token is a word that nobody else has.
func token() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// until bounds reads and writes by ctx, and by d if it is not 0.
func (c *conn) until(ctx context.Context, d time.Duration) {
	end, ok := ctx.Deadline()
	if !ok {
		end = time.Now().Add(limit)
	}
	if d > 0 && time.Now().Add(d).Before(end) {
		end = time.Now().Add(d)
	}
	_ = c.SetDeadline(end) // what it is for fails then
}

func (c *conn) send(s string) error {
	_, err := io.WriteString(c, s)
	return err
}

// read reads one frame.
func (c *conn) read() (frame, error) {
	line, err := c.r.ReadString('\n')
	if err != nil {
		return frame{}, err
	}
	line = strings.TrimRight(line, "\r\n")
	verb, rest, _ := strings.Cut(line, " ")
	f := frame{verb: strings.ToUpper(verb), text: rest}
	if f.verb != "MSG" && f.verb != "HMSG" {
		return f, nil
	}
	words := strings.Fields(rest)
	sizes := 1
	if f.verb == "HMSG" {
		sizes = 2
	}
	if len(words) < 2+sizes || len(words) > 3+sizes {
		return f, fmt.Errorf("attack: the broker sent %q", line)
	}
	f.subject, f.sid = words[0], words[1]
	if len(words) == 3+sizes {
		f.reply = words[2]
	}
	total, err := strconv.Atoi(words[len(words)-1])
	head := 0
	if err == nil && sizes == 2 {
		head, err = strconv.Atoi(words[len(words)-2])
	}
	if err != nil || total < head || head < 0 || total > maxFrame {
		return f, fmt.Errorf("attack: the broker sent %q", line)
	}
	data := make([]byte, total+2)
	if _, err := io.ReadFull(c.r, data); err != nil {
		return f, err
	}
	f.verb, f.header, f.body = "MSG", string(data[:head]), string(data[head:total])
	return f, nil
}

// take reads one frame, answers PING, and keeps messages and errors.
func (c *conn) take() (frame, error) {
	f, err := c.read()
	switch {
	case err != nil:
	case f.verb == "PING":
		err = c.send("PONG\r\n")
	case f.verb == "MSG":
		c.heard = append(c.heard, f)
	case f.verb == "-ERR":
		c.errs = append(c.errs, strings.Trim(f.text, "'"))
	}
	return f, err
}

// sync waits until the broker has worked off all that was sent, and returns the errors
// that it told since the last time. Together with an error they are those before it.
func (c *conn) sync(ctx context.Context) ([]string, error) {
	c.until(ctx, 0)
	err := c.send("PING\r\n")
	for {
		// Even where nothing can be sent any more, there may be a last word to read.
		f, rerr := c.take()
		if rerr != nil {
			err = errors.Join(err, rerr)
			break
		}
		if f.verb == "PONG" {
			err = nil
			break
		}
	}
	errs := c.errs
	c.errs = nil
	return errs, err
}

// next returns the next message of a subscription that ok, and false when none comes in d.
func (c *conn) next(ctx context.Context, d time.Duration, sid string, ok func(*frame) bool) (frame, bool, error) {
	c.until(ctx, d)
	for {
		for i := range c.heard {
			if f := c.heard[i]; f.sid == sid && (ok == nil || ok(&f)) {
				c.heard = append(c.heard[:i], c.heard[i+1:]...)
				return f, true, nil
			}
		}
		if _, err := c.take(); errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() == nil {
			return frame{}, false, nil
		} else if err != nil {
			return frame{}, false, err
		}
	}
}

// subscribe sends SUB, with words that may be a queue; sync tells what came of it.
func (c *conn) subscribe(words string) (sid string, err error) {
	c.sids++
	sid = strconv.Itoa(c.sids)
	return sid, c.send("SUB " + words + " " + sid + "\r\n")
}

// pub is the text of a publish. Headers are "name: value".
func pub(subject, reply string, header []string, body string) string {
	if reply != "" {
		reply += " "
	}
	if len(header) == 0 {
		return fmt.Sprintf("PUB %s %s%d\r\n%s\r\n", subject, reply, len(body), body)
	}
	return hpub(subject, reply, "NATS/1.0\r\n"+strings.Join(header, "\r\n")+"\r\n\r\n", body)
}

// hpub is a publish with a header block of one's own making. reply ends in a blank or is
// empty.
func hpub(subject, reply, block, body string) string {
	return fmt.Sprintf("HPUB %s %s%d %d\r\n%s%s\r\n", subject, reply, len(block), len(block)+len(body), block, body)
}

// answer is what came to the reply subject of a request, or the -ERR in its place.
type answer struct {
	frame
	code     int    // of a refusal of Signet's; 0: it is none
	reason   string // in the words of the registry of errors
	said     string // in those of the broker
	api      int    // err_code of the server's own
	noticed  bool   // 503: nobody was there to take it
	stream   string
	sequence uint64
	double   bool // duplicate
}

// acked reports whether the answer says that an event was stored.
func (a *answer) acked() bool { return a.code == 0 && a.api == 0 && a.stream != "" && a.sequence > 0 }

var codeWord = regexp.MustCompile(`\b(40[0-9]{3})\b ?([A-Za-z]*)`)

// refusalIn finds the code of a refusal in a text of the broker's.
func refusalIn(text string) (code int, reason string) {
	m := codeWord.FindStringSubmatch(text)
	if m == nil {
		return 0, ""
	}
	code, _ = strconv.Atoi(m[1]) // five digits
	return code, wire.Code(code).Entry().Title
}

func parseAnswer(f frame) *answer {
	a := &answer{frame: f}
	if strings.HasPrefix(f.header, "NATS/1.0 ") {
		status, _, _ := strings.Cut(f.header, "\r\n")
		a.noticed = strings.HasPrefix(status, "NATS/1.0 503")
		a.code, a.reason = refusalIn(status)
		return a
	}
	var body struct {
		Error *struct {
			ErrCode     int    `json:"err_code"`
			Description string `json:"description"`
		} `json:"error"`
		Stream    string `json:"stream"`
		Seq       uint64 `json:"seq"`
		Duplicate bool   `json:"duplicate"`
	}
	if json.Unmarshal([]byte(f.body), &body) != nil {
		return a
	}
	a.stream, a.sequence, a.double = body.Stream, body.Seq, body.Duplicate
	if e := body.Error; e != nil {
		a.api, a.reason, a.said = e.ErrCode, e.Description, e.Description
		if a.api >= 40000 && a.api < 41000 {
			a.code, a.api = a.api, 0
			a.reason = wire.Code(a.code).Entry().Title
		}
	}
	return a
}

// request publishes and waits for the answer, which may be an -ERR.
func (c *conn) request(ctx context.Context, subject string, header []string, body string) (*answer, error) {
	return c.ask(ctx, func(reply string) string { return pub(subject, reply, header, body) })
}

// ask sends what frame makes of a reply subject, and waits for the answer.
func (c *conn) ask(ctx context.Context, text func(reply string) string) (*answer, error) {
	if c.asked == 0 {
		c.until(ctx, 0)
		if err := c.send("SUB " + c.inbox + ".* r\r\n"); err != nil {
			return nil, err
		}
	}
	c.asked++
	reply := c.inbox + "." + strconv.Itoa(c.asked)
	c.until(ctx, 0)
	if err := c.send(text(reply)); err != nil {
		return nil, err
	}
	for {
		f, err := c.take()
		if err != nil {
			return nil, fmt.Errorf("no answer: %w", errors.Join(err, errorTold(c.errs)))
		}
		if f.verb == "-ERR" {
			a := &answer{frame: f, reason: f.text}
			a.code, a.reason = refusalIn(f.text)
			c.errs = nil
			return a, nil
		}
		// What a pull gives comes under its own subject.
		if f.verb == "MSG" && f.sid == "r" && (f.subject == reply || !strings.HasPrefix(f.subject, c.inbox)) {
			c.heard = c.heard[:len(c.heard)-1]
			return parseAnswer(f), nil
		}
	}
}

// errorTold makes an error of what the broker has said.
func errorTold(errs []string) error {
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("the broker said %q", errs[len(errs)-1])
}

package broker_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/signetbus/signet/broker/brokertest"
)

// spy is a connection that speaks the protocol by hand and keeps every byte that it gets.
type spy struct {
	*raw
	t       *testing.T
	broker  *brokertest.Broker
	name    string
	secrets *secrets
	pings   int

	mu      sync.Mutex
	changed *sync.Cond
	pongs   int
	answers map[string]int // messages so far, by subject
	refused int            // problems, refusing statuses and errors so far
	said    string         // the last of them
	found   map[string]int // markers, by their secret
	where   map[string]string
	routes  map[string]int // markers, by the subscription that they came by
	bytes   int
	closed  error
}

// secrets are markers, by what they mark.
type secrets struct{ of map[string]string }

// marker is what stands in a payload or header for a secret: text that base64 leaves
// findable, and that nothing else has.
func (s *secrets) marker(secret string) string {
	m := fmt.Sprintf("MARK%012dKRAM", len(s.of))
	if old, ok := s.of[secret]; ok {
		return old
	}
	s.of[secret] = m
	return m
}

var (
	markerForm = regexp.MustCompile(`MARK\d{12}KRAM`)
	base64Run  = regexp.MustCompile(`[A-Za-z0-9+/_=-]{24,}`)
	refusing   = regexp.MustCompile(`^NATS/1\.0 4\d\d 4\d{4}\b`)
)

// newSpy connects as a principal.
func newSpy(t *testing.T, b *brokertest.Broker, principal string, s *secrets) *spy {
	t.Helper()
	p := &spy{t: t, broker: b, name: principal, secrets: s, answers: map[string]int{}, found: map[string]int{}, where: map[string]string{}, routes: map[string]int{}}
	p.changed = sync.NewCond(&p.mu)
	p.connect()
	return p
}

// connect makes the connection, anew if the broker has closed one: what has come stays.
func (p *spy) connect() {
	p.t.Helper()
	r, _ := rawTLS(p.t, p.broker, p.broker.Cred(p.name))
	check(p.t, r.SetDeadline(time.Time{}))
	p.raw, p.closed = r, nil
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.read(r.r)
	}()
	p.t.Cleanup(func() {
		_ = r.Close()
		<-done
	})
}

func (p *spy) read(r *bufio.Reader) {
	for {
		line, err := r.ReadString('\n')
		var body []byte
		if f := strings.Fields(line); err == nil && len(f) > 0 && (f[0] == "MSG" || f[0] == "HMSG") {
			n, _ := strconv.Atoi(f[len(f)-1])
			body = make([]byte, n+2)
			_, err = io.ReadFull(r, body)
		}
		if strings.HasPrefix(line, "PING") {
			_, _ = p.Write([]byte("PONG\r\n")) // an error ends the next read too
		}
		p.take(line, body, err)
		if err != nil {
			return
		}
	}
}

// take keeps what one frame has in it.
func (p *spy) take(line string, body []byte, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bytes += len(line) + len(body)
	p.closed = err
	for _, m := range markersIn(line + string(body)) {
		p.found[m]++
		if f := strings.Fields(line); body != nil && len(f) > 2 {
			p.routes[f[2]]++
		}
		p.where[m] = fmt.Sprintf("%.200q %.400q", line, body)
	}
	if body != nil {
		p.answers[strings.Fields(line)[1]]++
	}
	switch {
	case strings.HasPrefix(line, "PONG"):
		p.pongs++
	case strings.HasPrefix(line, "-ERR"):
		p.refused++
		p.said = line
	case refusing.Match(body), bytes.Contains(body, []byte(`"problem":{`)):
		p.refused++
		p.said = string(body)
	}
	p.changed.Broadcast()
}

// markersIn finds markers as they are and in base64, however deep.
func markersIn(text string) []string {
	out := markerForm.FindAllString(text, -1)
	for _, run := range base64Run.FindAllString(text, -1) {
		for skip := range 4 {
			part := strings.TrimRight(run[skip:], "=")
			for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
				if plain, _ := enc.DecodeString(part); bytes.Contains(plain, []byte("MARK")) {
					out = append(out, markersIn(string(plain))...)
				}
			}
		}
	}
	return out
}

// pub publishes; header is whole lines.
func (p *spy) pub(subject, reply, header string, body []byte) {
	if reply != "" {
		reply += " "
	}
	if header == "" {
		p.send(fmt.Sprintf("PUB %s %s%d\r\n%s\r\n", subject, reply, len(body), body))
		return
	}
	block := "NATS/1.0\r\n" + header + "\r\n"
	p.send(fmt.Sprintf("HPUB %s %s%d %d\r\n%s%s\r\n", subject, reply, len(block), len(block)+len(body), block, body))
}

// settle waits until everything that was sent has been judged, and returns how many
// refusals there have been so far.
func (p *spy) settle() int {
	p.t.Helper()
	p.pings++
	p.send("PING\r\n")
	p.await("PING", func() bool { return p.pongs >= p.pings })
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.refused
}

// await waits for what ok says of the frames so far; it is called with mu held.
func (p *spy) await(what string, ok func() bool) {
	p.t.Helper()
	late := false
	overdue := time.AfterFunc(patience, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		late = true
		p.changed.Broadcast()
	})
	defer overdue.Stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	for !ok() && p.closed == nil && !late {
		p.changed.Wait()
	}
	if !ok() {
		p.t.Fatalf("%s: no answer to %s (late %v); the connection: %v %s", p.name, what, late, p.closed, p.said)
	}
}

// forget takes the markers that came so far.
func (p *spy) forget() (found map[string]int, where map[string]string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	found, where = p.found, p.where
	p.found, p.where = map[string]int{}, map[string]string{}
	return found, where
}

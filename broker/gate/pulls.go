package gate

import (
	"encoding/json"
	"strings"
	"sync"
	"time"

	"github.com/signetbus/signet/internal/wire"
)

// maxPulls is how many pull requests one connection is remembered by. They are for what is
// withheld, which is rare: who has more under way waits for its own time-out then.
const maxPulls = 32

// pull is one request for events that went upstream.
type pull struct {
	stream, consumer string
	reply            string // upstream
	body             []byte
	at               time.Time
}

// pulls are the latest pull requests of one connection. The reader adds, the relay looks.
type pulls struct {
	mu   sync.Mutex
	list []pull // a ring
	next int
}

// note remembers a pull; body is canonical and copied.
func (l *pulls) note(p pull) {
	p.body = append([]byte(nil), p.body...)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.list) < maxPulls {
		l.list = append(l.list, p)
		return
	}
	l.list[l.next] = p
	l.next = (l.next + 1) % maxPulls
}

// again returns a request for one more event of the consumer, for the client that listens
// on filter (upstream): the newest pull of it with what is left of its time. ok is false
// where there is none, or its time is over.
func (l *pulls) again(stream, consumer, filter string, now time.Time) (subject, reply string, body []byte, ok bool) {
	l.mu.Lock()
	var last *pull
	for i := range l.list {
		p := &l.list[i]
		if p.stream == stream && p.consumer == consumer && wire.Match(filter, p.reply) && (last == nil || !p.at.Before(last.at)) {
			last = p
		}
	}
	var p pull
	if last != nil {
		p = *last
	}
	l.mu.Unlock()
	if last == nil {
		return "", "", nil, false
	}
	if body, ok = oneMore(p.body, now.Sub(p.at)); !ok {
		return "", "", nil, false
	}
	return wire.PrefixJSAPI + "CONSUMER.MSG.NEXT." + stream + "." + consumer, p.reply, body, true
}

// leastWait is the shortest time that is worth asking for.
const leastWait = 10 * time.Millisecond

// oneMore is a pull request for one event, with what is left of the time of the one in
// body. Heartbeats come with the first request, as long as that is there.
func oneMore(body []byte, passed time.Duration) ([]byte, bool) {
	req := map[string]any{}
	if len(body) > 0 && json.Unmarshal(body, &req) != nil {
		return nil, false
	}
	req["batch"] = 1
	delete(req, "max_bytes")
	if expires, ok := req["expires"].(float64); ok && expires > 0 {
		left := time.Duration(expires) - passed
		if left < leastWait {
			return nil, false
		}
		req["expires"] = int64(left)
		if beat, ok := req["idle_heartbeat"].(float64); ok && 2*time.Duration(beat) >= left {
			delete(req, "idle_heartbeat")
		} else if ok {
			req["idle_heartbeat"] = int64(beat)
		}
	}
	out, err := json.Marshal(req)
	return out, err == nil
}

// pullOf is what a forwarded request pulls; ok is false if it pulls nothing.
func pullOf(subject, stream, consumer, reply string, body []byte, now time.Time) (pull, bool) {
	p := pull{stream: stream, consumer: consumer, reply: reply, at: now}
	switch {
	case strings.HasPrefix(subject, apiMsgNext):
		p.body = body
	case strings.HasPrefix(string(body), "+NXT"):
		p.body = body[len("+NXT"):]
	default:
		return p, false
	}
	return p, reply != ""
}

package client

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/internal/wire"
)

// onMessage runs on the goroutine of the nats.go subscription, in order. Statuses
// come on the inbox itself, events on the subject they were published on, so no
// header of an event can pass for a status.
func (p *puller) onMessage(msg *nats.Msg) {
	p.frames.Add(1)
	for _, w := range p.waiting.due(p.s) {
		if p.current(&w.info) {
			p.check(w.msg, &w.info, true)
		}
	}
	if msg.Subject == p.inbox {
		p.onStatus(msg)
		return
	}
	if left := p.pending.Add(-1); left <= int64(p.s.cfg.maxInFlight/2) {
		p.wake(p.kick)
	}
	info, ok := parseAck(msg.Reply)
	if ok && p.accept(&info) {
		p.check(msg, &info, false)
	}
}

// check verifies a delivery and hands it on; again: it was held back before.
func (p *puller) check(msg *nats.Msg, info *ackInfo, again bool) {
	d, later, err := p.s.verify(msg, info.stored)
	switch {
	case err == nil:
	case later && p.waiting.keep(p.s, msg, info, err):
		if !again {
			p.s.refuse(InvalidEvent{NATSSubject: msg.Subject, Stream: info.stream, Sequence: info.streamSeq, Err: err, Retried: true})
		}
		return
	default:
		p.refuse(msg, info, later, err)
		if p.keyed != nil {
			p.keyed.missed(info, later)
		}
		return
	}
	d.Stream, d.Consumer, d.Sequence, d.NumDelivered = info.stream, info.consumer, info.streamSeq, info.delivered
	d.Pending, d.Stored = info.queue, info.stored
	if !p.s.cfg.ordered {
		d.sub = p.s
	}
	if p.keyed != nil {
		p.keyed.arrived(info, d)
		return
	}
	p.s.push(d)
}

// current reports whether a delivery is of the present consumer.
func (p *puller) current(info *ackInfo) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return info.consumer == p.consumer
}

// accept says whether the message is the next of the present consumer. One of a
// consumer that was replaced is dropped: it comes again through the new one.
func (p *puller) accept(info *ackInfo) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if info.stream != p.stream || info.consumer != p.consumer {
		return false
	}
	if p.s.cfg.ordered {
		if info.consumerSeq != p.expect {
			p.expect = 0 // nothing fits until the consumer is remade
			p.report(errGap)
			return false
		}
		p.expect++
	}
	p.last = max(p.last, info.streamSeq)
	if p.open != nil {
		p.open[info.streamSeq] = struct{}{}
	}
	return true
}

var errGap = errors.New("client: events were lost on the way")

// settled forgets a delivery that a remade consumer need not bring again.
func (p *puller) settled(seq uint64) {
	p.mu.Lock()
	delete(p.open, seq)
	p.mu.Unlock()
}

// keyed returns the partition of SubscribeKeyed that s reads for, or nil.
func (s *Subscription) keyed() *partition {
	if s.stored == nil {
		return nil
	}
	return s.stored.keyed
}

// done is called when no redelivery of d is wanted.
func (s *Subscription) done(d *Delivery) { s.stored.settled(d.Sequence) }

// refusedBody gives up an event that no handler may have, and says why. Of an attestation
// that does not hold no more is told: what is wrong with it is for who reads the letter.
func refusedBody(err error) string {
	if errors.Is(err, ErrDecryption) || errors.Is(err, ErrNotEncrypted) || errors.Is(err, ErrProducerRequired) {
		return termBody(err.Error())
	}
	return termBody("attestation does not hold")
}

// refuse terminates an event whose attestation does not hold, or puts it back
// when that could not be told. Without acknowledgement there is no way back, so
// an ordered subscription is remade from the event that could not be checked.
func (p *puller) refuse(msg *nats.Msg, info *ackInfo, later bool, err error) {
	s := p.s
	s.refuse(InvalidEvent{NATSSubject: msg.Subject, Stream: info.stream, Sequence: info.streamSeq, Err: err, Retried: later})
	if s.cfg.ordered {
		if later {
			p.mu.Lock()
			p.expect, p.last = 0, info.streamSeq-1
			p.mu.Unlock()
			p.report(err)
		}
		return
	}
	body := refusedBody(err)
	if later {
		body = nakBody(laterDelay)
	} else {
		p.settled(info.streamSeq)
	}
	if err := s.client.nc.Publish(msg.Reply, []byte(body)); err != nil {
		s.client.cfg.onError(fromTransport("ack", msg.Subject, err))
	}
}

// onStatus reads the frames with which the server answers a pull.
func (p *puller) onStatus(msg *nats.Msg) {
	status, text := msg.Header.Get("Status"), msg.Header.Get("Description")
	unused, counted := int64(0), false
	if v := msg.Header.Get("Nats-Pending-Messages"); v != "" {
		n, err := strconv.ParseInt(v, 10, 64)
		unused, counted = n, err == nil && n >= 0
	}
	switch {
	case status == "100": // idle heartbeat: it was counted
	case status == "" && len(msg.Data) == 0: // not ours
	case (status == "404" || status == "408" || status == "409") && counted:
		if p.pending.Add(-unused) < 0 {
			p.pending.Store(0)
		}
		if status == "409" && consumerTrouble(text) {
			p.report(statusError(status, text, msg.Data))
			return
		}
		p.wake(p.kick)
	default:
		p.pending.Store(0)
		p.report(statusError(status, text, msg.Data))
	}
}

func consumerTrouble(text string) bool {
	text = strings.ToLower(text)
	return strings.Contains(text, "deleted") || strings.Contains(text, "leadership") || strings.Contains(text, "shutdown")
}

// statusError makes an error of a status frame. A refusal by the gate has its
// code in the description, or an answer in JSON as its body.
func statusError(status, text string, body []byte) error {
	var a apiAnswer
	if len(body) > 0 && json.Unmarshal(body, &a) == nil && a.Error != nil {
		return fromAPI("pull", *a.Error, a.Problem)
	}
	word, rest, _ := strings.Cut(text, " ")
	if code, err := strconv.Atoi(word); err == nil && code >= 40000 && code <= 40999 {
		return fromRefusal("pull", wire.Refuse(wire.Code(code), "", rest))
	}
	code, _ := strconv.Atoi(status) // 0 is no status that is known
	return &Error{
		Op: "pull", Class: string(statusClass(wire.APIError{Code: code})), Title: "the pull ended",
		Detail: strings.TrimSpace(status + " " + text),
	}
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/client/admin"
)

const (
	clusterBreakers = 3
	// breakEvery keeps all breakers together below the rate within which a node writes
	// dead letters (50/s), also when all of them are at one.
	breakEvery = 400 * time.Millisecond
	// calmFor is how long nothing is wrong when nothing may be missing.
	calmFor = 2 * time.Second
	// lettersWait bounds the time after which a refusal has its dead letter when nothing
	// is wrong: three tries of 5 s.
	lettersWait = 20 * time.Second

	brokenSubject = "faults.broken"
)

// letters is what was published that breaks its schema, what was answered, and which
// dead letters there are. Safe for concurrent use.
//
// A dead letter of a refusal is written after the answer, best effort (docs/spec/dlq.md): one may
// be missing after a fault. What there is must be exact, once, and stay.
type letters struct {
	mu      sync.Mutex
	calm    bool
	tries   map[string]*broken // by payload
	refs    map[string]bool    // of refusals that were answered
	found   map[uint64]string  // dead letters by sequence: their refs
	cursor  uint64
	judged  letterFaults
	phases  int // without a fault
	example error
}

// broken is one publish that must be refused.
type broken struct {
	id       string // of the event: in the original header
	calm     bool   // sent when nothing was wrong
	answered bool   // with a refusal of the schema
	other    bool   // with a refusal that passes: the node could not decide
	ref      string // of that refusal
	letters  int
	at       uint64 // sequence and ref of its dead letter
	has      string
}

// letterFaults are what must not be.
type letterFaults struct{ wrong, twice, gone int }

// brokenEvent lacks what the schema of its subject requires.
type brokenEvent struct {
	Breaker int    `json:"breaker"`
	Number  int    `json:"number"`
	Pad     string `json:"pad"`
}

func newLetters() *letters {
	return &letters{tries: map[string]*broken{}, refs: map[string]bool{}, found: map[uint64]string{}}
}

// open connects a breaker and starts it.
func (l *letters) open(w *workload, id int) error {
	// Nothing is kept for later while there is no connection: each goes out once.
	nc, err := w.at.Connect("publisher", nats.ReconnectWait(50*time.Millisecond), nats.MaxReconnects(-1), nats.ReconnectBufSize(-1))
	if err != nil {
		return err
	}
	w.closes = append(w.closes, nc.Close)
	w.wg.Go(func() {
		t := time.NewTicker(breakEvery)
		defer t.Stop()
		for number := 1; ; number++ {
			select {
			case <-w.ending:
				return
			case <-w.life.Done():
				return
			case <-t.C:
			}
			if err := l.breakOne(w.life, nc, id, number); err != nil && w.life.Err() == nil {
				w.fault <- fmt.Errorf("breaker %d: %w", id, err)
				return
			}
		}
	})
	return nil
}

// breakOne publishes one event that must be refused.
func (l *letters) breakOne(ctx context.Context, nc *nats.Conn, id, number int) error {
	payload, err := json.Marshal(brokenEvent{id, number, pad})
	if err != nil {
		return err
	}
	t := &broken{id: fmt.Sprintf("broken-%d-%d", id, number)}
	l.mu.Lock()
	l.tries[string(payload)], t.calm = t, l.calm
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, tryFor)
	defer cancel()
	m, err := nc.RequestMsgWithContext(ctx, &nats.Msg{Subject: brokenSubject, Data: payload, Header: nats.Header{nats.MsgIdHdr: {t.id}}})
	if err != nil {
		return nil // no answer: there may be a dead letter or not
	}
	return l.answer(t, m.Data)
}

// answer takes the answer to what must be refused.
func (l *letters) answer(t *broken, data []byte) error {
	var a struct {
		Sequence uint64 `json:"seq"`
		Problem  *struct {
			Class string `json:"class"`
			Ref   string `json:"ref"`
		} `json:"problem"`
	}
	err := json.Unmarshal(data, &a)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err != nil || a.Sequence != 0 || a.Problem == nil:
	case a.Problem.Class == "schema-violation" && a.Problem.Ref != "" && !l.refs[a.Problem.Ref]:
		t.answered, t.ref = true, a.Problem.Ref
		l.refs[t.ref] = true
		return nil
	case a.Problem.Class == "unavailable" && !t.calm:
		t.other = true
		return nil
	}
	return fmt.Errorf("%w: %s breaks its schema, and the answer is %q (%w)", errBroken, t.id, data, err)
}

// calmly is a time without a fault: every refusal in it is answered and has its dead letter, and
// no fault comes before it has.
func calmly(ctx context.Context, r *clusterRun) error {
	l := r.w.broken
	if err := awaitStatus(ctx, r, "every stream is whole", allWhole); err != nil {
		return err
	}
	// Those of the time before are many, and not what is waited for.
	if err := l.read(ctx, r); err != nil {
		return fmt.Errorf("dead letters: %w", err)
	}
	set := func(calm bool) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.calm = calm
	}
	set(true)
	err := linger(ctx, calmFor)
	set(false)
	if err != nil {
		return err
	}
	limit, cancel := context.WithTimeout(ctx, lettersWait)
	defer cancel()
	for {
		err := l.read(limit, r)
		missing := l.missing(true)
		if err == nil && len(missing) == 0 {
			l.phases++
			return r.w.failed()
		}
		if linger(limit, 100*time.Millisecond) != nil {
			return fmt.Errorf("%w: nothing was wrong, and %s: %w", errBroken, strings.Join(missing[:min(5, len(missing))], ", "), errors.Join(err, limit.Err()))
		}
	}
}

// missing are the refusals without a dead letter; of the calm ones also those without an answer.
func (l *letters) missing(calm bool) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for _, t := range l.tries {
		switch {
		case calm && !t.calm:
		case t.answered && t.letters == 0:
			out = append(out, t.id+" has no dead letter")
		case calm && !t.answered:
			out = append(out, t.id+" has no answer")
		}
	}
	return out
}

// read takes the dead letters that are new since the last time.
func (l *letters) read(ctx context.Context, r *clusterRun) error {
	return oversee(ctx, r, func(api *admin.API) error {
		for {
			page, err := api.DLQList(ctx, admin.DLQQuery{DLQFilter: admin.DLQFilter{Principal: "publisher"}, Cursor: l.cursor, Limit: admin.MaxListLimit})
			if err != nil {
				return err
			}
			for i := range page.Entries {
				letter, err := api.DLQShow(ctx, page.Entries[i].Seq)
				if err != nil {
					return err
				}
				l.letter(letter)
				l.cursor = letter.Seq
			}
			if len(page.Entries) == 0 || !page.More {
				return nil
			}
		}
	})
}

// letter takes one dead letter.
func (l *letters) letter(d *admin.StoredLetter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.found[d.Seq] = d.Ref
	t := l.tries[string(d.Payload)]
	if t == nil {
		l.fault(&l.judged.wrong, d.Seq, "its payload was never published")
		return
	}
	header := "NATS/1.0\r\n" + nats.MsgIdHdr + ": " + t.id + "\r\n\r\n"
	t.at, t.has = d.Seq, d.Ref
	switch t.letters++; {
	case t.letters > 1:
		l.fault(&l.judged.twice, d.Seq, "%s has %d", t.id, t.letters)
	case d.Reason != "schema" || d.Stage != "ingress" || d.Subject != brokenSubject || d.Principal != principal || string(d.Header) != header || len(d.Violations) == 0:
		l.fault(&l.judged.wrong, d.Seq, "of %s: %+v", t.id, d)
	}
}

// fault counts what must not be. l.mu is held.
func (l *letters) fault(count *int, seq uint64, format string, args ...any) {
	*count++
	if l.example == nil {
		l.example = fmt.Errorf("dead letter %d: "+format, append([]any{seq}, args...)...)
	}
}

// stay looks whether every dead letter that was there still is, at its place.
func (l *letters) stay(ctx context.Context, r *clusterRun) error {
	now := map[uint64]string{}
	err := oversee(ctx, r, func(api *admin.API) error {
		for cursor, more := uint64(0), true; more; {
			page, err := api.DLQList(ctx, admin.DLQQuery{DLQFilter: admin.DLQFilter{Principal: "publisher"}, Cursor: cursor, Limit: admin.MaxListLimit})
			if err != nil {
				return err
			}
			for i := range page.Entries {
				now[page.Entries[i].Seq] = page.Entries[i].Ref
			}
			cursor, more = page.Cursor, page.More
		}
		return nil
	})
	if err == nil {
		l.kept(now)
	}
	return err
}

// kept compares the dead letters that were found with those that there are now.
func (l *letters) kept(now map[uint64]string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for seq, ref := range l.found {
		if now[seq] != ref {
			l.fault(&l.judged.gone, seq, "it was there with the ref %s and is not", ref)
		}
	}
}

// judgeLetters reads the dead letters and prints the verdict. The load has ended.
func judgeLetters(ctx context.Context, r *clusterRun, what string) error {
	l := r.w.broken
	if err := errors.Join(l.read(ctx, r), l.stay(ctx, r)); err != nil {
		return fmt.Errorf("dead letters: %w", err)
	}
	return l.verdict(what)
}

// verdict prints and judges. Nothing is published any more.
func (l *letters) verdict(what string) error {
	without, calmly := len(l.missing(false)), len(l.missing(true))
	l.mu.Lock()
	defer l.mu.Unlock()
	refused, silent, other, calm := 0, 0, 0, 0
	for _, t := range l.tries {
		switch {
		case t.answered:
			refused++
		case t.other:
			other++
		default:
			silent++
		}
		if t.calm {
			calm++
		}
		if t.letters > 0 && (t.other || t.answered && t.has != t.ref) {
			l.fault(&l.judged.wrong, t.at, "its ref is %s, that of the answer to %s is %q", t.has, t.id, t.ref)
		}
	}
	fmt.Printf("%s, dead letters: %d publishes refused for their schema, %d for another reason, %d without an answer; %d dead letters: wrong %d, twice %d, gone %d; %d of the refused have none, %d of the %d in %d times without a fault\n",
		what, refused, other, silent, len(l.found), l.judged.wrong, l.judged.twice, l.judged.gone, without, calmly, calm, l.phases)
	switch {
	case l.judged != letterFaults{}:
		return fmt.Errorf("%w: dead letters: first: %w", errBroken, l.example)
	case calmly > 0:
		return fmt.Errorf("%w: dead letters are missing although nothing was wrong", errBroken)
	case refused == 0 || len(l.found) == 0:
		return fmt.Errorf("%w: nothing was refused, or there is no dead letter", errBroken)
	}
	return nil
}

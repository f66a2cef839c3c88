package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/internal/wire"
)

// refusedGroup counts equal refusals.
type refusedGroup struct {
	Code  int    `json:"code"`
	Name  string `json:"name"`
	Rule  string `json:"rule,omitempty"`
	Count int    `json:"count"`
	First int    `json:"first"` // number of the event, from 1; with --ndjson the line
	Ref   string `json:"ref,omitempty"`
	Fix   string `json:"fix,omitempty"`

	err *client.Error
}

// tally is the outcome of many publishes.
type tally struct {
	Subject    string          `json:"subject"`
	Sent       int             `json:"sent"`
	Stored     int             `json:"stored"`
	Duplicates int             `json:"duplicates"`
	Failed     int             `json:"failed"` // no answer: the outcome is unknown
	Refused    int             `json:"refused"`
	Seconds    float64         `json:"seconds"`
	Refusals   []*refusedGroup `json:"refusals,omitempty"`

	groups map[string]*refusedGroup
	broken error // first failure that was no refusal
}

func (t *tally) add(n int, ack *client.Ack, err error) {
	var e *client.Error
	switch {
	case err == nil && ack.Duplicate:
		t.Duplicates++
	case err == nil:
		t.Stored++
	case errors.As(err, &e) && refusalCode(e) == exitRefused, errors.As(err, &e) && refusalCode(e) == exitUsage:
		t.refuse(n, e)
	default:
		t.Failed++
		if t.broken == nil {
			t.broken = err
		}
	}
}

func (t *tally) refuse(n int, e *client.Error) {
	t.Refused++
	key := strconv.Itoa(e.Code) + e.Rule
	g := t.groups[key]
	if g == nil {
		name := e.Name
		if name == "" {
			name = e.Title
		}
		g = &refusedGroup{Code: e.Code, Name: name, Rule: e.Rule, First: n, Ref: e.Ref, err: e}
		t.groups[key] = g
		t.Refusals = append(t.Refusals, g)
	}
	g.Count++
}

// publishMany sends with many in flight and reports the sum.
func (p *pubVerb) publishMany(ctx context.Context, c *client.Client, subject string, in io.Reader, single []byte, opts []client.PubOpt) error {
	type sent struct {
		n   int
		f   *client.Future
		err error
	}
	t := &tally{Subject: subject, groups: map[string]*refusedGroup{}}
	// The answers are collected beside the sending; the bound only limits how far
	// the collector may lag.
	answers := make(chan sent, 2*client.DefaultMaxInFlight)
	collected := make(chan struct{})
	go func() {
		defer close(collected)
		for s := range answers {
			if s.err != nil {
				t.add(s.n, nil, s.err)
				continue
			}
			ack, err := s.f.Wait(context.WithoutCancel(ctx)) // ends with --timeout
			t.add(s.n, ack, err)
			if err := p.receipts.keep(ack); err != nil && t.broken == nil {
				t.broken = err
			}
		}
	}()
	began := time.Now()
	total := 0
	err := p.payloads(ctx, in, single, func(n int, data []byte) error {
		total++
		f, err := c.PublishAsync(ctx, subject, p.make(data), opts...)
		answers <- sent{n, f, err}
		if errors.Is(err, client.ErrUnavailable) || errors.Is(err, client.ErrInvalidOption) {
			return err
		}
		return nil
	})
	close(answers)
	<-collected
	t.Sent, t.Seconds = total, time.Since(began).Seconds()
	slices.SortFunc(t.Refusals, func(a, b *refusedGroup) int { return cmp.Compare(b.Count, a.Count) })
	p.printTally(t)
	switch {
	case err != nil:
		return err
	case t.broken != nil:
		return hintLive(t.broken)
	case t.Refused > 0:
		return &exitError{code: exitRefused}
	}
	return nil
}

func (p *pubVerb) printTally(t *tally) {
	for _, g := range t.Refusals {
		g.Fix = p.fix(g.err)
		if g.err.Class == string(wire.ClassRateLimited) {
			g.Fix = "slower: --rate N; " + g.Fix
		}
	}
	if p.jsonOut() {
		_ = p.printJSON(t) // standard output is gone: nobody to tell
		return
	}
	rate := ""
	if t.Seconds > 0 {
		rate = fmt.Sprintf(" (%.0f/s)", float64(t.Sent)/t.Seconds)
	}
	fmt.Fprintf(p.stdout, "%s: %d sent, %d stored, %d duplicate, %d refused, %d failed in %s%s\n", clean(t.Subject),
		t.Sent, t.Stored, t.Duplicates, t.Refused, t.Failed, time.Duration(t.Seconds*float64(time.Second)).Round(time.Millisecond), rate)
	what := "event"
	if p.ndjson {
		what = "line"
	}
	for _, g := range t.Refusals {
		fmt.Fprintf(p.stderr, "refused %d: %s\n", g.Count, clean(headline(g.err)))
		pairs := []string{"detail", g.err.Detail, "code", fmt.Sprintf("%d %s", g.Code, g.err.Name), "rule", g.Rule, "first", fmt.Sprintf("%s %d", what, g.First)}
		for _, v := range g.err.Violations {
			pairs = append(pairs, "violation", violationText(wire.Violation(v)))
		}
		if g.Ref != "" {
			pairs = append(pairs, "ref", g.Ref+" (signet explain "+g.Ref+")")
		}
		facts(p.stderr, "  ", append(pairs, "fix", g.Fix)...)
	}
}

// liveErrors collects refusals that belong to no call. It drops what is over its
// bound.
type liveErrors struct{ got chan error }

func (l *liveErrors) add(err error) {
	select {
	case l.got <- err:
	default:
	}
}

// publishLive sends on an ephemeral subject. There is no acknowledgement; the
// refusals come as errors of the connection, before the answer to a later request.
func (p *pubVerb) publishLive(ctx context.Context, c *client.Client, subject string, in io.Reader, single []byte, opts []client.PubOpt, live *liveErrors) error {
	total := 0
	err := p.payloads(ctx, in, single, func(_ int, data []byte) error {
		total++
		return c.PublishLive(ctx, subject, p.make(data), opts...)
	})
	if err != nil {
		return err
	}
	call, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	if err := c.Drain(call); err != nil {
		return err
	}
	// The client hands errors on in the background; Drain has seen the last answer,
	// so what was refused is on its way.
	timer := time.NewTimer(50 * time.Millisecond)
	defer timer.Stop()
	select {
	case err := <-live.got:
		return err
	case <-timer.C:
	}
	if p.jsonOut() {
		return p.printJSON(map[string]any{"subject": subject, "sent": total, "live": true})
	}
	fmt.Fprintf(p.stdout, "sent %s, not stored: the subject is ephemeral\n", plural(total, "event"))
	return nil
}

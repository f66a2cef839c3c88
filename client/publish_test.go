package client

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/signetbus/signet/internal/wire"
)

func TestPublish(t *testing.T) {
	f := newFakeBroker(t)
	var got published
	f.script = func(p published) {
		got = p
		f.deliver(p.reply, "", "", []byte(`{"stream":"ORDERS","seq":7,"duplicate":true}`))
	}
	c := f.connect()
	ev := &Event{
		ID: "1", Type: "t", DataContentType: ContentTypeJSON, Time: time.Unix(0, 0),
		Extensions: map[string]string{"region": "north \"sea\"\u00e9"}, Data: []byte("{}"),
	}
	ack, err := c.Publish(context.Background(), "orders.created", ev)
	if err != nil {
		t.Fatal(err)
	}
	f.look(func() {})
	if want := (Ack{Stream: "ORDERS", Sequence: 7, Duplicate: true, EventID: "1"}); !reflect.DeepEqual(*ack, want) {
		t.Errorf("ack = %+v", ack)
	}
	for _, want := range []string{"ce-id: 1\r\n", "ce-specversion: 1.0\r\n", "ce-time: 1970-01-01T00:00:00Z\r\n", "ce-region: north%20%22sea%22%C3%A9\r\n", "ce-datacontenttype: application/json\r\n"} {
		if !strings.Contains(got.header, want) {
			t.Errorf("header has no %q:\n%s", want, got.header)
		}
	}
	if strings.Contains(got.header, "ce-source") {
		t.Error("an absent source was sent")
	}
}

func TestPublishRefusal(t *testing.T) {
	f := newFakeBroker(t)
	r := wire.Refuse(wire.CodeSchemaViolation, "subjects[0]", "2 violations")
	r.Ref, r.Principal = "ref1", "shop/checkout"
	r.Violations = []wire.Violation{{At: "/total", Rule: "type", Message: "want number"}}
	f.script = func(p published) { f.deliver(p.reply, "", "", r.Answer("", false)) }
	c := f.connect()
	_, err := c.Publish(context.Background(), "orders.created", NewEvent("t", nil))
	var e *Error
	if !errors.Is(err, ErrSchemaViolation) || !errors.As(err, &e) {
		t.Fatalf("error = %v", err)
	}
	if e.Code != 40400 || e.Ref != "ref1" || len(e.Violations) != 1 || e.Violations[0].At != "/total" || e.EventID == "" || e.Subject != "orders.created" {
		t.Errorf("error = %+v", e)
	}
	if Retryable(err) {
		t.Error("a schema violation is not retryable")
	}
}

func TestPublishRetriesWithTheSameID(t *testing.T) {
	f := newFakeBroker(t)
	var ids []string
	f.script = func(p published) {
		_, rest, _ := strings.Cut(p.header, "ce-id: ")
		id, _, _ := strings.Cut(rest, "\r\n")
		ids = append(ids, id)
		if len(ids) < 3 {
			r := wire.Refuse(wire.CodeRateLimited, "limit writer", "")
			r.RetryAfter = 5 * time.Millisecond
			f.deliver(p.reply, "", "", r.Answer("", false))
			return
		}
		f.deliver(p.reply, "", "", []byte(`{"stream":"ORDERS","seq":1}`))
	}
	c := f.connect(WithRetry(RetryPolicy{Retries: 2, Delay: time.Millisecond}))
	ack, err := c.Publish(context.Background(), "orders.created", NewEvent("t", nil))
	f.look(func() {})
	if err != nil || len(ids) != 3 || ids[0] != ids[1] || ids[1] != ids[2] || ack.EventID != ids[0] {
		t.Fatalf("ack = %+v, error = %v, ids = %v", ack, err, ids)
	}
	f.look(func() { ids = nil })
	_, err = c.Publish(context.Background(), "orders.created", NewEvent("t", nil), WithoutRetry())
	f.look(func() {})
	var e *Error
	if !errors.Is(err, ErrRateLimited) || !errors.As(err, &e) || e.RetryAfter != 5*time.Millisecond || len(ids) != 1 {
		t.Fatalf("error = %v, %d tries", err, len(ids))
	}
}

func TestPublishNeverWaitsPastTheDeadline(t *testing.T) {
	f := newFakeBroker(t)
	f.script = func(p published) {
		r := wire.Refuse(wire.CodeRateLimited, "limit writer", "")
		r.RetryAfter = time.Hour
		f.deliver(p.reply, "", "", r.Answer("", false))
	}
	c := f.connect()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	began := time.Now()
	if _, err := c.Publish(ctx, "a", NewEvent("t", nil)); !errors.Is(err, ErrRateLimited) {
		t.Fatalf("error = %v", err)
	}
	if d := time.Since(began); d > 30*time.Second {
		t.Errorf("it took %v", d)
	}
}

func TestPublishWithoutAnswer(t *testing.T) {
	f := newFakeBroker(t)
	c := f.connect()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	_, err := c.Publish(ctx, "a", &Event{ID: "x", Type: "t"})
	var e *Error
	if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ErrUnavailable) || !errors.As(err, &e) || e.EventID != "x" || !Retryable(err) {
		t.Fatalf("error = %+v", err)
	}
}

// Publishes without an answer are sent again after a reconnect, in their order.
func TestPublishIsSentAgainAfterReconnect(t *testing.T) {
	f := newFakeBroker(t)
	const n = 20
	var mu sync.Mutex
	var second []string
	seen, down := 0, false
	f.script = func(p published) {
		_, rest, _ := strings.Cut(p.header, "ce-id: ")
		id, _, _ := strings.Cut(rest, "\r\n")
		mu.Lock()
		defer mu.Unlock()
		if down {
			second = append(second, id)
			f.deliver(p.reply, "", "", []byte(`{"stream":"ORDERS","seq":1}`))
			return
		}
		if seen++; seen == n {
			down = true
			f.drop()
		}
	}
	c := f.connect()
	var futures []*Future
	for i := range n {
		fu, err := c.PublishAsync(context.Background(), "a", &Event{ID: fmt.Sprintf("%02d", i), Type: "t"})
		if err != nil {
			t.Fatal(err)
		}
		futures = append(futures, fu)
	}
	if err := c.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	for i, fu := range futures {
		select {
		case <-fu.Done():
		default:
			t.Fatalf("future %d is open after Flush", i)
		}
		if _, err := fu.Wait(context.Background()); err != nil {
			t.Fatalf("future %d: %v", i, err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for i, id := range second {
		if id != fmt.Sprintf("%02d", i) {
			t.Fatalf("sent again in the order %v", second)
		}
	}
}

func TestPublishAsyncIsBounded(t *testing.T) {
	f := newFakeBroker(t)
	c := f.connect(WithMaxInFlight(1))
	first, err := c.PublishAsync(context.Background(), "a", NewEvent("t", nil))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if _, err := c.PublishAsync(ctx, "a", NewEvent("t", nil)); !errors.Is(err, ErrTooManyInFlight) {
		t.Fatalf("error = %v", err)
	}
	c.Close()
	if _, err := first.Wait(context.Background()); !errors.Is(err, ErrClosed) || Retryable(err) {
		t.Fatalf("after Close: %v", err)
	}
	if _, err := c.Publish(context.Background(), "a", NewEvent("t", nil)); !errors.Is(err, ErrClosed) {
		t.Fatalf("publish after Close: %v", err)
	}
}

func TestPublishRefusesLocally(t *testing.T) {
	f := newFakeBroker(t)
	f.script = func(p published) { t.Errorf("sent to %s", p.subject) }
	c := f.connect()
	tests := []struct {
		name, subject string
		ev            *Event
		opts          []PubOpt
		want          error
	}{
		{"no event", "a", nil, nil, ErrMalformed},
		{"wildcard", "a.*", NewEvent("t", nil), nil, ErrMalformed},
		{"space", "a b", NewEvent("t", nil), nil, ErrMalformed},
		{"control in id", "a", &Event{ID: "a\r\nNats-Rollup: all", Type: "t"}, nil, ErrMalformed},
		{"extension name", "a", &Event{Type: "t", Extensions: map[string]string{"x: 1\r\ny": "1"}}, nil, ErrMalformed},
		{"upper-case name", "a", &Event{Type: "t", Extensions: map[string]string{"Region": "1"}}, nil, ErrMalformed},
		{"header ce-", "a", NewEvent("t", nil), []PubOpt{WithHeader("CE-id", "1")}, ErrInvalidOption},
		{"header line", "a", NewEvent("t", nil), []PubOpt{WithHeader("X", "1\r\nY: 2")}, ErrInvalidOption},
		{"too large", "a", NewEvent("t", make([]byte, 2<<20)), nil, ErrTooLarge},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := c.Publish(context.Background(), tt.subject, tt.ev, tt.opts...); !errors.Is(err, tt.want) {
				t.Errorf("error = %v, want %v", err, tt.want)
			}
		})
	}
}

// A signed event that is sent again after a reconnect may be too old by then, though
// the first sending was stored: that is no refusal of the event.
func TestTooOldAfterReconnectIsAnUnknownOutcome(t *testing.T) {
	for _, again := range []bool{true, false} {
		f := newFakeBroker(t)
		var sent atomic.Int64
		f.script = func(p published) {
			if sent.Add(1) == 1 && again {
				f.drop()
				return
			}
			f.deliver(p.reply, "", "", []byte(`{"error":{"code":403,"err_code":40308,"description":"too old"}}`))
		}
		_, err := f.connect().Publish(context.Background(), "a", &Event{ID: "1", Type: "t"})
		if errors.Is(err, ErrOutcomeUnknown) != again || errors.Is(err, ErrBadSignature) == again || Retryable(err) {
			t.Errorf("sent again %v: got %v", again, err)
		}
		if e := new(Error); !errors.As(err, &e) || e.EventID != "1" {
			t.Errorf("sent again %v: no event id in %v", again, err)
		}
	}
}

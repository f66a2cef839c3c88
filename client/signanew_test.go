package client

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/internal/wire"
)

// recordedIn is the recordedtime in the header of a publish.
func recordedIn(t *testing.T, p published) string {
	t.Helper()
	name := wire.PrefixAttribute + wire.AttrRecordedTime + ": "
	_, rest, ok := strings.Cut(p.header, name)
	if !ok {
		t.Errorf("no recordedtime in %s", p.header)
	}
	at, _, _ := strings.Cut(rest, "\r\n")
	return at
}

// outlived is the refusal of an event that was signed before the broker began.
func outlived(wait time.Duration) []byte {
	r := wire.Refuse(wire.CodeOutsideReplayWindow, "producer-signature", "this node has started since")
	r.RetryAfter = wait
	return r.Answer("", false)
}

// TestSignedAnewAfterAStart: an event that the broker refuses because it has started since
// the signature is signed anew, with the same id, at once and then when that is sure to help.
func TestSignedAnewAfterAStart(t *testing.T) {
	f := newFakeBroker(t)
	var times []string
	f.script = func(p published) {
		at := recordedIn(t, p)
		times = append(times, at)
		if !strings.Contains(p.header, wire.PrefixAttribute+"id: 1\r\n") {
			t.Errorf("another id: %s", p.header)
		}
		if at > times[0] {
			f.deliver(p.reply, "", "", []byte(`{"stream":"WORK","seq":7}`))
			return
		}
		f.deliver(p.reply, "", "", outlived(time.Second))
	}
	seed, _ := testSeed(t, nkeys.PrefixByteAccount)
	c := f.connect(WithEventKey(seed), WithRetry(RetryPolicy{Retries: 3, Delay: time.Millisecond}))
	ack, err := c.Publish(context.Background(), "work.a", &Event{ID: "1", Type: "t"})
	if err != nil || ack.Sequence != 7 {
		t.Fatalf("got %+v, %v after %v", ack, err, times)
	}
	f.look(func() {
		if len(times) < 2 || len(times) > 3 {
			t.Errorf("sent %d times, at %v: want once more at once, and once after the second", len(times), times)
		}
	})
}

// TestNotSignedAnew: what signing anew does not help, or nobody wants, is refused at once.
func TestNotSignedAnew(t *testing.T) {
	seed, _ := testSeed(t, nkeys.PrefixByteAccount)
	for _, tt := range []struct {
		name   string
		opts   []Option
		pub    []PubOpt
		answer []byte
	}{
		{"too old", []Option{WithEventKey(seed)}, nil, outlived(0)},
		{"without retries", []Option{WithEventKey(seed)}, []PubOpt{WithoutRetry()}, outlived(time.Second)},
		{"signed by somebody else", nil, nil, outlived(time.Second)},
	} {
		f := newFakeBroker(t)
		sent := 0
		f.script = func(p published) { sent++; f.deliver(p.reply, "", "", tt.answer) }
		_, err := f.connect(tt.opts...).Publish(context.Background(), "work.a", &Event{ID: "1", Type: "t"}, tt.pub...)
		var e *Error
		if !errors.Is(err, ErrBadSignature) || !errors.As(err, &e) || e.Code != int(wire.CodeOutsideReplayWindow) {
			t.Errorf("%s: got %v", tt.name, err)
		}
		f.look(func() {
			if sent != 1 {
				t.Errorf("%s: sent %d times", tt.name, sent)
			}
		})
	}
}

// TestSignedAnewForgetsNoFirstSending: what was sent before a lost connection may be stored,
// whatever is said of it when it is signed anew.
func TestSignedAnewForgetsNoFirstSending(t *testing.T) {
	f := newFakeBroker(t)
	sent := 0
	f.script = func(p published) {
		switch sent++; sent {
		case 1:
			f.drop()
		case 2:
			f.deliver(p.reply, "", "", outlived(time.Second))
		default:
			f.deliver(p.reply, "", "", wire.Refuse(wire.CodePublishDenied, "publish", "").Answer("", false))
		}
	}
	seed, _ := testSeed(t, nkeys.PrefixByteAccount)
	_, err := f.connect(WithEventKey(seed), WithRetry(RetryPolicy{Retries: 3, Delay: time.Millisecond})).
		Publish(context.Background(), "work.a", &Event{ID: "1", Type: "t"})
	if !errors.Is(err, ErrOutcomeUnknown) {
		t.Errorf("got %v", err)
	}
	f.look(func() {
		if sent != 3 {
			t.Errorf("sent %d times", sent)
		}
	})
}

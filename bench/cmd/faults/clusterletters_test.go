package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/internal/wire"
)

// refusedOnes has n publishes that were answered with a refusal, and their dead letters.
func refusedOnes(t *testing.T, n int) (*letters, []*admin.StoredLetter) {
	t.Helper()
	l, out := newLetters(), []*admin.StoredLetter(nil)
	for i := range n {
		payload, err := json.Marshal(brokenEvent{0, i, pad})
		if err != nil {
			t.Fatal(err)
		}
		b, ref := &broken{id: fmt.Sprintf("broken-0-%d", i), calm: i == 0}, fmt.Sprintf("ref-%d", i)
		l.tries[string(payload)] = b
		if err := l.answer(b, fmt.Appendf(nil, `{"error":{},"problem":{"class":"schema-violation","ref":%q}}`, ref)); err != nil {
			t.Fatal(err)
		}
		d := &admin.StoredLetter{Header: []byte("NATS/1.0\r\n" + nats.MsgIdHdr + ": " + b.id + "\r\n\r\n"), Payload: payload}
		d.Seq, d.Ref, d.Reason, d.Stage, d.Subject, d.Principal = uint64(i+1), ref, "schema", "ingress", brokenSubject, principal
		d.Violations = append(d.Violations, wire.Violation{})
		out = append(out, d)
	}
	return l, out
}

// TestLetters: the judge sees each way in which a dead letter may be wrong, and lets a fault
// take some.
func TestLetters(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(l *letters, d []*admin.StoredLetter) []*admin.StoredLetter
		want   letterFaults
		bad    bool
	}{
		{"all there", nil, letterFaults{}, false},
		{"one missing after a fault", func(_ *letters, d []*admin.StoredLetter) []*admin.StoredLetter { return d[:2] }, letterFaults{}, false},
		{"one missing without a fault", func(_ *letters, d []*admin.StoredLetter) []*admin.StoredLetter { return d[1:] }, letterFaults{}, true},
		{"another payload", func(_ *letters, d []*admin.StoredLetter) []*admin.StoredLetter {
			d[2].Payload = append(d[2].Payload, ' ')
			return d
		}, letterFaults{wrong: 1}, true},
		{"another header", func(_ *letters, d []*admin.StoredLetter) []*admin.StoredLetter {
			d[2].Header = nil
			return d
		}, letterFaults{wrong: 1}, true},
		{"another reason", func(_ *letters, d []*admin.StoredLetter) []*admin.StoredLetter {
			d[2].Reason = "acl"
			return d
		}, letterFaults{wrong: 1}, true},
		{"another ref", func(_ *letters, d []*admin.StoredLetter) []*admin.StoredLetter {
			d[2].Ref = "ref-x"
			return d
		}, letterFaults{wrong: 1}, true},
		{"twice", func(_ *letters, d []*admin.StoredLetter) []*admin.StoredLetter {
			again := *d[2]
			again.Seq = 9
			return append(d, &again)
		}, letterFaults{twice: 1}, true},
		{"gone", func(l *letters, d []*admin.StoredLetter) []*admin.StoredLetter {
			l.letter(d[2])
			return d[:2]
		}, letterFaults{gone: 1}, true},
		{"refused because the node could not decide", func(l *letters, d []*admin.StoredLetter) []*admin.StoredLetter {
			b := l.tries[string(d[2].Payload)]
			b.answered, b.other = false, true
			return d
		}, letterFaults{wrong: 1}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, all := refusedOnes(t, 3)
			if c.change != nil {
				all = c.change(l, all)
			}
			now := map[uint64]string{}
			for _, d := range all {
				l.letter(d)
				now[d.Seq] = d.Ref
			}
			l.kept(now)
			if err := l.verdict("test"); errors.Is(err, errBroken) != c.bad || l.judged != c.want {
				t.Errorf("%v, %+v", err, l.judged)
			}
		})
	}
}

// TestLettersAnswers: what breaks its schema must be refused, and for that.
func TestLettersAnswers(t *testing.T) {
	for answer, bad := range map[string]bool{
		`{"problem":{"class":"schema-violation","ref":"r"}}`: false,
		`{"problem":{"class":"unavailable","ref":"r"}}`:      false,
		`{"problem":{"class":"schema-violation"}}`:           true,
		`{"problem":{"class":"permission-denied"}}`:          true,
		`{"stream":"FAULTS","seq":7}`:                        true,
		`{`:                                                  true,
	} {
		if err := newLetters().answer(&broken{id: "x"}, []byte(answer)); errors.Is(err, errBroken) != bad {
			t.Errorf("%s: %v", answer, err)
		}
	}
	if err := newLetters().answer(&broken{id: "x", calm: true}, []byte(`{"problem":{"class":"unavailable","ref":"r"}}`)); !errors.Is(err, errBroken) {
		t.Errorf("unavailable although nothing is wrong: %v", err)
	}
}

// TestPlan: names that there are, and nothing else.
func TestPlan(t *testing.T) {
	p, err := chosen("kill=2,half-open=1")
	if err != nil || len(p) != 2 || p["kill"] != 2 || p["half-open"] != 1 {
		t.Errorf("%v, %v", p, err)
	}
	for _, text := range []string{"", "kill", "kill=-1", "flood=1"} {
		if _, err := chosen(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

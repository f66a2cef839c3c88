package jsapi

import (
	"fmt"
	"strings"
	"testing"
)

func TestAckNumbers(t *testing.T) {
	for _, tt := range []struct {
		subject           string
		attempt, sequence uint64
		ok                bool
	}{
		{"$JS.ACK.ORDERS.mine.3.17.9.1700000000000000000.4", 3, 17, true},
		{"$JS.ACK._.hash.ORDERS.mine.3.17.9.1700000000000000000.4", 3, 17, true},
		{"$JS.ACK._.hash.ORDERS.mine.3.17.9.1700000000000000000.4.random.more", 3, 17, true},
		{"$JS.ACK.ORDERS.mine.0.17.9.1.4", 0, 0, false},
		{"$JS.ACK.ORDERS.mine.1.0.9.1.4", 0, 0, false},
		{"$JS.ACK.ORDERS.mine.-1.17.9.1.4", 0, 0, false},
		{"$JS.ACK.ORDERS.mine.x.17.9.1.4", 0, 0, false},
		{"$JS.ACK.ORDERS.mine.1.18446744073709551616.9.1.4", 0, 0, false},
		{"$JS.ACK.ORDERS.mine.1.17.9.1", 0, 0, false},
		{"$JS.ACK.a.ORDERS.mine.1.17.9.1.4", 0, 0, false},
		{"orders.1", 0, 0, false},
	} {
		attempt, sequence, ok := AckNumbers(tt.subject)
		if ok != tt.ok || ok && (attempt != tt.attempt || sequence != tt.sequence) {
			t.Errorf("%s: %d, %d, %v", tt.subject, attempt, sequence, ok)
		}
	}
}

// FuzzAckNumbers: what has numbers is an ack subject, and they stand in it behind the
// consumer that Ack reads.
func FuzzAckNumbers(f *testing.F) {
	f.Add("$JS.ACK.ORDERS.mine.3.17.9.1700000000000000000.4")
	f.Add("$JS.ACK._.hash.ORDERS.mine.3.17.9.1700000000000000000.4.random")
	f.Add("$JS.ACK........")
	f.Fuzz(func(t *testing.T, subject string) {
		attempt, sequence, ok := AckNumbers(subject)
		if !ok {
			return
		}
		stream, consumer, is := Ack(subject)
		if !is || attempt == 0 || sequence == 0 {
			t.Fatalf("%q: %d, %d", subject, attempt, sequence)
		}
		tokens := strings.Split(subject, ".")
		at := 4
		if len(tokens) > 9 {
			at = 6
		}
		if tokens[at-2] != stream || tokens[at-1] != consumer ||
			strings.TrimLeft(tokens[at], "0") != fmt.Sprint(attempt) || strings.TrimLeft(tokens[at+1], "0") != fmt.Sprint(sequence) {
			t.Fatalf("%q: %s %s %d %d", subject, stream, consumer, attempt, sequence)
		}
	})
}

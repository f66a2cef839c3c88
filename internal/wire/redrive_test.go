package wire

import (
	"strings"
	"testing"
)

func TestRetryConsumer(t *testing.T) {
	for _, c := range [][2]string{{"ORDERS", "billing"}, {"A_B", "C"}, {"A", "B_C"}, {"9_X", "1_2"}} {
		name := RetryConsumer(c[0], c[1])
		if s, k, ok := RetryOrigin(name); !ok || s != c[0] || k != c[1] {
			t.Errorf("%s: %q %q %v", name, s, k, ok)
		}
	}
	if RetryConsumer("A_B", "C") == RetryConsumer("A", "B_C") {
		t.Error("two consumers have one queue")
	}
	if RetryConsumer("A", strings.Repeat("c", 253)) != "" || RetryConsumer("", "c") != "" {
		t.Error("a name that is too long or empty")
	}
	for _, bad := range []string{"", "x", "6_ORDERS", "6_ORDERS_", "06_ORDERS_b", "+6_ORDERS_b", "7_ORDERS_b", "-1_x_y", "99_A_b", "0__b"} {
		if s, k, ok := RetryOrigin(bad); ok {
			t.Errorf("%q is taken for %q %q", bad, s, k)
		}
	}
}

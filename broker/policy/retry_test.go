package policy

import (
	"os"
	"strings"
	"testing"
	"time"
)

const retryPolicy = `
tenant: shop
streams:
  - {name: ORDERS, subjects: [orders.>], maxBytes: 1MiB}
  - {name: ORDERS-EU, subjects: [eu.>], maxBytes: 1MiB, retention: interest, retry: {maxDeliveries: 8, backoff: {min: 2m}}}
  - {name: JOBS, subjects: [jobs.>], maxBytes: 1MiB, retention: workqueue}
retry:
  maxDeliveries: 3
  backoff: {min: 100ms, max: 10s, factor: 1.5}
  consumers:
    - {match: ORDERS.billing, maxDeliveries: 10}
    - {match: ORDERS*.bill*, maxDeliveries: 20, backoff: {max: 5m}}
    - {match: "*.slow", backoff: {min: 1s, factor: 4}}
`

func compiled(t *testing.T, text string) *Tenant {
	t.Helper()
	b, err := Parse("p.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	set, err := Compile(b)
	if err != nil {
		t.Fatal(err)
	}
	return set.Tenant("shop")
}

func TestRetry(t *testing.T) {
	shop := compiled(t, retryPolicy)
	for _, tt := range []struct {
		stream, consumer string
		want             Retry
	}{
		{"ORDERS", "any", Retry{3, 100 * time.Millisecond, 10 * time.Second, 1.5}},
		{"ORDERS", "billing", Retry{10, 100 * time.Millisecond, 10 * time.Second, 1.5}},
		{"ORDERS", "bills", Retry{20, 100 * time.Millisecond, 5 * time.Minute, 1.5}},
		{"ORDERS-EU", "billing", Retry{20, 2 * time.Minute, 5 * time.Minute, 1.5}},
		{"ORDERS-EU", "any", Retry{8, 2 * time.Minute, 2 * time.Minute, 1.5}}, // max of the tenant is less than min of the stream
		{"JOBS", "slow", Retry{3, time.Second, 10 * time.Second, 4}},
		{"GONE", "slow", DefaultRetry()},
		{"RETRY", "6_ORDERS_billing", Retry{10, 100 * time.Millisecond, 10 * time.Second, 1.5}}, // of its retry queue
		{"RETRY", "billing", DefaultRetry()},
	} {
		if got := shop.Retry(tt.stream, tt.consumer); got != tt.want {
			t.Errorf("%s.%s: got %v, want %v", tt.stream, tt.consumer, got, tt.want)
		}
	}
	if got := compiled(t, "tenant: shop\nstreams: [{name: A, subjects: [a.>], maxBytes: 1MiB}]\n").Retry("A", "c"); got != DefaultRetry() {
		t.Errorf("without a word: %v", got)
	}
	for stream, want := range map[string]Retention{"ORDERS": RetentionLimits, "ORDERS-EU": RetentionInterest, "JOBS": RetentionWorkQueue} {
		if got := shop.Stream(stream).Retention; got != want {
			t.Errorf("retention of %s: %s, want %s", stream, got, want)
		}
	}
}

func TestRetryDelay(t *testing.T) {
	r := Retry{MaxDeliveries: 5, Min: time.Second, Max: 10 * time.Second, Factor: 2}
	for _, tt := range []struct {
		delivered uint64
		random    float64
		want      time.Duration
	}{
		{0, 1, time.Second},
		{1, 1, time.Second},
		{1, 0, 500 * time.Millisecond},
		{3, 1, 4 * time.Second},
		{4, 0.5, 6 * time.Second},
		{5, 1, 10 * time.Second},
		{1 << 63, 1, 10 * time.Second},
	} {
		if got := r.Delay(tt.delivered, tt.random); got != tt.want {
			t.Errorf("after delivery %d at %g: %s, want %s", tt.delivered, tt.random, got, tt.want)
		}
	}
}

func TestRetryFaults(t *testing.T) {
	const head = "tenant: shop\nstreams: [{name: A, subjects: [a.>], maxBytes: 1MiB%s}]\n"
	for _, tt := range []struct{ stream, more, want string }{
		{"", "retry: {maxDeliveries: 0}", "a whole number from 1 to 1000"},
		{"", "retry: {maxDeliveries: 1001}", "a whole number from 1 to 1000"},
		{"", "retry: {backoff: {min: 2m, max: 1m}}", "min 2m0s is more than max 1m0s"},
		{"", "retry: {backoff: {max: 25h}}", "at most 24h"},
		{"", "retry: {backoff: {factor: 0.5}}", "a number from 1 to 100"},
		{"", "retry: {backoff: {factor: .nan}}", "a number from 1 to 100"},
		{"", "retry: {backoff: {jitter: 1}}", "known keys: factor, max, min"},
		{"", "retry: {consumers: [{match: A, maxDeliveries: 1}]}", "is not STREAM.CONSUMER"},
		{"", "retry: {consumers: [{match: A.b.c, maxDeliveries: 1}]}", "is not STREAM.CONSUMER"},
		{"", "retry: {consumers: [{match: \"A*b.c\"}]}", "is not STREAM.CONSUMER"},
		{"", "retry: {consumers: [{match: B.c}]}", `unknown stream "B"`},
		{"", "retry: {consumers: [{maxDeliveries: 2}]}", "match is missing"},
		{"", "---\ntenant: shop\nretry: {}\n---\ntenant: shop\nretry: {}", "retry is declared twice"},
		{", retry: {consumers: []}", "", `unknown key "consumers"`},
		{", retention: queue", "", "limits, interest or workqueue is wanted"},
		{", retention: workqueue, log: true", "", "log: true excludes retention: workqueue"},
		{", retention: interest, log: true", "", "log: true excludes retention: interest"},
	} {
		_, err := Parse("p.yaml", []byte(strings.Replace(head, "%s", tt.stream, 1)+tt.more+"\n"))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s %s: got %v, want %s", tt.stream, tt.more, err, tt.want)
		}
	}
}

// TestRetryInTheSpecification: every key of retry is in docs/spec/policy.md, and a change
// of it shows in what a plan says.
func TestRetryInTheSpecification(t *testing.T) {
	spec, err := os.ReadFile("../../docs/spec/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(spec), "\n### retry\n")
	section, _, _ = strings.Cut(section, "\n### ")
	for _, key := range []string{"maxDeliveries", "backoff", "min", "max", "factor", "consumers"} {
		if !ok || !strings.Contains(section, "| `"+key+"` |") {
			t.Errorf("key %s is not in the section of retry", key)
		}
	}
	b, err := Parse("p.yaml", []byte(retryPolicy))
	if err != nil {
		t.Fatal(err)
	}
	old, err := Compile(b)
	if err != nil {
		t.Fatal(err)
	}
	b, err = Parse("p.yaml", []byte(strings.Replace(retryPolicy, "maxDeliveries: 10}", "maxDeliveries: 11}", 1)))
	if err != nil {
		t.Fatal(err)
	}
	now, err := Compile(b)
	if err != nil {
		t.Fatal(err)
	}
	list := Compare(old, now)
	if len(list) != 1 || list[0].What != Changes || list[0].Name != "ORDERS" || !strings.Contains(list[0].Detail, "maxDeliveries 11") {
		t.Errorf("a change of one consumer's retry shows as %v", list)
	}
	if again := Compare(now, now); len(again) != 0 {
		t.Errorf("differs from itself: %v", again)
	}
}

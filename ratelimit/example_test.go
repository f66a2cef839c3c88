package ratelimit_test

import (
	"fmt"
	"time"

	"github.com/signetbus/signet/ratelimit"
)

func Example() {
	var table ratelimit.Table // one per broker
	limit := ratelimit.Limit{Name: "writer", Messages: 2, Burst: time.Second}
	bucket := table.Bucket("shop/checkout", limit.Name, limit)

	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for range 3 {
		d := bucket.Take(now.UnixNano(), 256)
		fmt.Println(d.OK, d.RetryAfter)
	}
	// Output:
	// true 0s
	// true 0s
	// false 500ms
}

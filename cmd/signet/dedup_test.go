package main

import (
	"strings"
	"testing"

	"github.com/signetbus/signet/broker/policy"
)

func TestDedupMemory(t *testing.T) {
	const head = "tenant: shop\nstreams: [{name: A, subjects: [a.>], maxBytes: 1MiB, duplicateWindow: 5m}]\n" +
		"limits: {l: {messages: 1000/s, bytes: 1MiB/s, burst: 1s, exceed: reject}}\nprincipals:\n"
	for _, tt := range []struct{ name, principals, want string }{
		{"nobody", "  - {name: r, subscribe: [a.>]}\n", "nobody may publish yet"},
		{"bounded", "  - {name: p, publish: [a.>], limit: l}\n", "at most 37.5 MiB of memory (1000 events/s x 5m0s x 131 B)"},
		{"unbounded", "  - {name: p, publish: [a.>], limit: l}\n  - {name: q, publish: [a.>]}\n", "without a message limit: q"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bundle, err := policy.Parse("p.yaml", []byte(head+tt.principals))
			if err != nil {
				t.Fatal(err)
			}
			set, err := policy.Compile(bundle)
			if err != nil {
				t.Fatal(err)
			}
			if got := dedupMemory(set.Tenant("shop")); !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q in it", got, tt.want)
			}
		})
	}
}

package admin

import (
	"context"
	"reflect"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/broker/redrive"
	"github.com/signetbus/signet/broker/store"
	"github.com/signetbus/signet/dlq"
	"github.com/signetbus/signet/internal/adminapi"
)

// TestStatsKeepTypesAndConsumersApart: a type, or a principal, may be named as a consumer.
func TestStatsKeepTypesAndConsumersApart(t *testing.T) {
	out := adminapi.DLQStats{Reasons: map[string]uint64{}, Subjects: map[string]uint64{}, Principals: map[string]uint64{}, Types: map[string]uint64{}, Consumers: map[string]uint64{}}
	for range 2 {
		countLetter(&out, &adminapi.DeadLetter{Reason: "delivery", Subject: "a", Type: "billing", Principal: "billing", Stream: "ORDERS", Consumer: "billing"})
	}
	countLetter(&out, &adminapi.DeadLetter{Reason: "schema", Subject: "a"})
	for name, got := range map[string][2]map[string]uint64{
		"types":      {out.Types, {"billing": 2}},
		"principals": {out.Principals, {"billing": 2}},
		"consumers":  {out.Consumers, {"ORDERS.billing": 2}},
		"subjects":   {out.Subjects, {"a": 3}},
	} {
		if !reflect.DeepEqual(got[0], got[1]) {
			t.Errorf("%s: %v, want %v", name, got[0], got[1])
		}
	}
}

// slowLetters takes longer to read a page than a page may be worked on.
type slowLetters struct {
	Letters
}

func (s slowLetters) ReadDLQ(_ context.Context, _ string, after uint64, _ []string, _ int) (page []store.DeadLetter, next uint64, err error) {
	<-time.After(workFor + 100*time.Millisecond)
	r := dlq.Record{Reason: dlq.ReasonDelivery, Stage: dlq.StageConsumer, Time: time.Unix(1, 0), NATSSubject: "orders.a"}
	header, body, err := r.Encode()
	for next = after + 1; next <= 3; next++ {
		page = append(page, store.DeadLetter{Sequence: next, Header: header, Data: body})
	}
	return page, 3, err
}

func (s slowLetters) Letter(_ context.Context, d *store.DeadLetter, _ *redrive.Order) (adminapi.Redriven, error) {
	return adminapi.Redriven{Letter: d.Sequence, Verdict: adminapi.VerdictRedriven}, nil
}

// TestSlowRedriveComesOn: a page has one letter at least, and the next one goes on behind it.
func TestSlowRedriveComesOn(t *testing.T) {
	b, err := policy.Parse("p.yaml", []byte("tenant: shop\nstreams: [{name: A, subjects: [a.>], maxBytes: 1MiB}]\nprincipals: [{name: root, identities: [{dns: root.example}], admin: [dlq]}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	set, err := policy.Compile(b)
	if err != nil {
		t.Fatal(err)
	}
	s := &Service{cfg: Config{Kept: Kept{Letters: slowLetters{}}, Log: zerolog.Nop()}}
	c := scan{s: s, r: &request{caller: set.PrincipalByFullName("shop/root")}, tenant: "shop", upTo: 3}
	var out adminapi.DLQRedriven
	if err := redrivePage(t.Context(), s, &c, &redrive.Order{}, 10, &out); err != nil {
		t.Fatal(err)
	}
	if len(out.Letters) != 1 || out.Letters[0].Letter != 1 || c.cursor != 1 || c.ended {
		t.Errorf("letters %+v, cursor %d, ended %v", out.Letters, c.cursor, c.ended)
	}
}

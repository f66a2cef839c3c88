package admin_test

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func ask(t *testing.T, nc *nats.Conn, subject, body string) wire.ErrorAnswer {
	t.Helper()
	m, err := nc.Request(subject, []byte(body), 5*time.Second)
	if err != nil {
		t.Fatalf("%s: %v", subject, err)
	}
	var a wire.ErrorAnswer
	if err := json.Unmarshal(m.Data, &a); err != nil {
		t.Fatalf("%s: %q: %v", subject, m.Data, err)
	}
	return a
}

// One administrator cannot keep the others, or the readers of the keyring, out.
func TestLongPollsLeaveRoom(t *testing.T) {
	b := brokertest.New(t, brokertest.Options{})
	nc := b.NATS("operator")
	inbox := nats.NewInbox()
	answers := make(chan *nats.Msg, 64)
	if _, err := nc.ChanSubscribe(inbox, answers); err != nil {
		t.Fatal(err)
	}
	for range 40 {
		if err := nc.PublishRequest(adminapi.SubjectRefusalsLs, inbox, []byte(`{"waitMs":30000,"after":1000000}`)); err != nil {
			t.Fatal(err)
		}
	}
	turned := 0
	for turned < 40-16 {
		select {
		case m := <-answers:
			var a wire.ErrorAnswer
			if err := json.Unmarshal(m.Data, &a); err != nil || a.Error.ErrCode != wire.CodeUnavailable {
				t.Fatalf("got %q", m.Data)
			}
			turned++
		case <-time.After(time.Minute):
			t.Fatalf("%d of 40 long polls were turned away, want 24", turned)
		}
	}
	if a := ask(t, b.NATS("reader"), adminapi.SubjectKeysRing, `{}`); a.Problem != nil {
		t.Errorf("keys.ring behind long polls: %+v", a.Problem)
	}
}

func TestGrantsAndStrictRequests(t *testing.T) {
	b := brokertest.New(t, brokertest.Options{})
	for _, subject := range adminapi.Subjects() {
		if _, open, _ := adminapi.Grant(subject); open {
			continue
		}
		if a := ask(t, b.NATS("app"), subject, `{}`); a.Error.ErrCode != wire.CodeAdminDenied {
			t.Errorf("%s without a grant: %+v", subject, a.Error)
		}
		if a := ask(t, b.NATS("operator"), subject, `{"nonsense":1}`); a.Error.ErrCode != wire.CodeRequestMalformed {
			t.Errorf("%s with an unknown member: %+v", subject, a.Error)
		}
	}
	if a := ask(t, b.NATS("operator"), "$SIGNET.API.status.nothing", `{}`); a.Error.ErrCode != wire.CodeNotFound {
		t.Errorf("an unknown verb: %+v", a.Error)
	}
}

func TestAnswers(t *testing.T) {
	b := brokertest.New(t, brokertest.Options{})
	app, api := b.Client("app"), admin.New(b.Client("operator"))
	ctx := t.Context()
	_, err := app.Publish(ctx, "orders.created", client.NewEvent("x", []byte(`{"id":"x"}`)))
	var refusal *client.Error
	if !errors.As(err, &refusal) || refusal.Ref == "" {
		t.Fatalf("got %v, want a refusal with a ref", err)
	}
	if e, err := api.Explain(ctx, refusal.Ref); err != nil || e.Code != wire.CodeSchemaViolation || e.Principal != "demo/app" {
		t.Errorf("explain: %+v, %v", e, err)
	}
	if _, err := api.Explain(ctx, "no-such-ref"); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("explain an unknown ref: %v", err)
	}
	can, err := api.CanI(ctx, adminapi.CanIRequest{Verb: "publish", Subject: "orders.created", Principal: "reader"})
	if err != nil || can.Allowed || can.Fix == "" {
		t.Errorf("can-i: %+v, %v", can, err)
	}
	if st, err := api.Status(ctx); err != nil || len(st.Streams) == 0 || st.Policy.Principals != 3 {
		t.Errorf("status: %+v, %v", st, err)
	}
	js, err := jetstream.New(b.NATS("app"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"idle", "busy"} {
		filter := map[string]string{"idle": "orders.nothing", "busy": "orders.>"}[name]
		if _, err := js.CreateConsumer(ctx, "ORDERS", jetstream.ConsumerConfig{Durable: name, FilterSubject: filter, AckPolicy: jetstream.AckExplicitPolicy}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := app.Publish(ctx, "orders.x", client.NewEvent("x", []byte(`{}`))); err != nil {
		t.Fatal(err)
	}
	list, err := api.Consumers(ctx, 1)
	if err != nil || list.Total != 2 || len(list.Consumers) != 1 || list.Consumers[0].Name != "busy" || list.Consumers[0].Pending != 1 ||
		list.Consumers[0].Owner != "demo/app" || !list.Consumers[0].Durable || list.Consumers[0].Created.IsZero() {
		t.Errorf("consumers: %+v, %v", list, err)
	}
	check, err := api.PolicyCheck(ctx, adminapi.PolicyFile{Name: "p.yaml", Text: "tenant: shop\nstraems: []\n"})
	if err != nil || check.OK || len(check.Faults) == 0 || check.Faults[0].Line != 2 {
		t.Errorf("policy check: %+v, %v", check, err)
	}
}

package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client"
)

// The Go of docs/guides/consume-events.md stands below, piece by piece.

type order struct{ Amount int }

type busyError struct{ after time.Duration }

func (*busyError) Error() string { return "busy" }

// effects is what the handlers of the guide do: what became of each amount.
var effects struct {
	sync.Mutex
	charged map[int]int
	keys    map[string]bool
}

func bank(_ context.Context, o order) error {
	effects.Lock()
	defer effects.Unlock()
	effects.charged[o.Amount]++
	if o.Amount == 7 && effects.charged[7] == 1 {
		return &busyError{after: time.Millisecond}
	}
	return nil
}

func inOneTransaction(_ context.Context, key string, _ []byte) error {
	effects.Lock()
	defer effects.Unlock()
	effects.keys[key] = true
	return nil
}

func charge(ctx context.Context, d *client.Delivery) error {
	var order order
	if err := json.Unmarshal(d.Event.Data, &order); err != nil {
		return client.Permanent(errors.New("not an order")) // a dead letter: it will never be better
	}
	if order.Amount < 0 {
		return client.Reject("amount is negative") // the same, in words of one's own
	}
	err := bank(ctx, order)
	var busy *busyError
	if errors.As(err, &busy) {
		return client.Retry(busy.after, err) // again, then
	}
	return err // nil acknowledges; any other error: again, when the policy says so
}

func record(ctx context.Context, d *client.Delivery) error {
	return inOneTransaction(ctx, client.EventKey(d), d.Event.Data) // nothing, if the key is there
}

// guideConnect is how a program of the guide connects, with a context in its home.
func guideConnect(ctx context.Context) (*client.Client, error) {
	c, err := client.Connect(ctx, "", client.WithContext("billing"))
	return c, err
}

// guideSubscribe runs section 1 to 3.
func guideSubscribe(ctx context.Context, t *testing.T, c *client.Client) {
	sub, err := c.Subscribe(ctx, "orders.*.created", charge, client.Durable("billing"), client.Concurrency(4))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sub.Stop)
	once, err := client.Once(ctx, c, client.Seen{Bucket: "seen", ByEvent: true}, charge)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range []client.Handler{once, record} {
		s, err := c.Subscribe(ctx, "orders.once.created", h)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Stop)
	}
	keyed, err := c.SubscribeKeyed(ctx, "orders.>", charge, client.Keyed{Group: "billing", Bucket: "groups", Key: client.SubjectToken(2)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { keyed.Stop(); <-keyed.Closed() })
}

// guidePublish runs section 4.
func guidePublish(ctx context.Context, c *client.Client, event, debit, credit *client.Event) error {
	ack, err := c.PublishAfter(ctx, "reminders.waiting", "reminders.due", 24*time.Hour, event)
	if err != nil || ack.Stream != "REMINDERS" {
		return fmt.Errorf("%+v: %w", ack, err)
	}
	schedules := client.SchedulesOf(c)
	info, err := schedules.Put(ctx, client.Schedule{
		Name: "nightly", Spec: "30 2 * * *", NATSSubject: "reminders.due",
		Event: &client.Event{Type: "com.example.reminder.nightly"},
	})
	if err != nil || info.Next.Hour() != 2 || info.Next.Minute() != 30 {
		return fmt.Errorf("%+v: %w", info, err)
	}
	event.ExpireAt(time.Now().Add(time.Hour))
	ack, err = c.Publish(ctx, "reminders.due", event, client.WithExpiry())
	if err != nil || ack.Stream != "REMINDERS" {
		return fmt.Errorf("%+v: %w", ack, err)
	}
	stored, err := c.PublishBatch(ctx, []client.BatchEvent{
		{NATSSubject: "ledger.debit", Event: debit},
		{NATSSubject: "ledger.credit", Event: credit},
	})
	if err != nil || stored.Count != 2 {
		return fmt.Errorf("%+v: %w", stored, err)
	}
	return nil
}

// guideDeadLetters runs section 5.
func guideDeadLetters(ctx context.Context, support *client.Client) error {
	for letter, err := range client.DeadLetters(ctx, support, client.DeadLetterQuery{Reason: "terminated"}) {
		if err != nil {
			return err
		}
		log.Printf("%s: %s", letter.Record.NATSSubject, letter.Record.Detail)
		if letter.AttestationFault == nil {
			log.Printf("published by %s", letter.Attestation.Principal)
		}
	}
	return nil
}

// TestGuide: the pieces of the guide are those above, and do what it says with its policy.
func TestGuide(t *testing.T) {
	text, err := os.ReadFile("../docs/guides/consume-events.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("guide_test.go")
	if err != nil {
		t.Fatal(err)
	}
	flat := func(s string) string { return strings.Join(strings.Fields(s), " ") }
	pieces := regexp.MustCompile("(?s)```(go|yaml)\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	policy, checked := "", 0
	for _, p := range pieces {
		switch {
		case p[1] == "yaml":
			policy = p[2]
		case strings.Contains(flat(string(source)), flat(p[2])):
			checked++
		default:
			t.Errorf("the guide has what is not here:\n%s", p[2])
		}
	}
	if checked != 11 || policy == "" {
		t.Fatalf("%d pieces were found", checked)
	}

	effects.charged, effects.keys = map[int]int{}, map[string]bool{}
	b := brokertest.New(t, brokertest.Options{Policy: policy})
	ctx := within(t, time.Minute)
	pub := b.Client("checkout")
	t.Setenv(client.EnvHome, t.TempDir())
	err = client.SaveContext(&client.Context{
		Name: "billing", URL: b.URL(), NkeySeedFile: b.Cred("billing"), CAFile: b.State.CA, RootKey: b.State.Root,
	})
	if err != nil {
		t.Fatal(err)
	}
	billing, err := guideConnect(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(billing.Close)
	guideSubscribe(ctx, t, billing)
	if err := guidePublish(ctx, pub, client.NewEvent("t", nil), client.NewEvent("t", nil), client.NewEvent("t", nil)); err != nil {
		t.Error(err)
	}
	if err := guideDeadLetters(ctx, b.Client("support")); err != nil {
		t.Error(err)
	}
	for subject, data := range map[string]string{"orders.a.created": `{"Amount":7}`, "orders.b.created": `{"Amount":-1}`, "orders.c.created": `no`, "orders.once.created": `{"Amount":9}`} {
		if _, err := pub.Publish(ctx, subject, client.NewEvent("t", []byte(data))); err != nil {
			t.Fatal(err)
		}
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		effects.Lock()
		// The durable and the group have 7, one of them twice; 9 goes to the marked handler, too.
		seven, nine, keys := effects.charged[7], effects.charged[9], len(effects.keys)
		effects.Unlock()
		if seven == 3 && nine == 3 && keys == 1 {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("7 was charged %d times, 9 %d times, %d keys", seven, nine, keys)
		}
	}
}

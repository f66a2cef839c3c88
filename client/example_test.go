package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/signetbus/signet/client"
)

// Publish one event and say what came of it.
func ExampleClient_Publish() {
	ctx := context.Background()
	c, err := client.Connect(ctx, "", client.WithContext("dev-app"))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	ev, err := client.NewJSONEvent("com.example.order.created", map[string]int{"order": 1})
	if err != nil {
		log.Fatal(err)
	}
	ack, err := c.Publish(ctx, "orders.created", ev)
	var refused *client.Error
	switch {
	case errors.Is(err, client.ErrSchemaViolation) && errors.As(err, &refused):
		for _, v := range refused.Violations {
			log.Printf("%s: %s", v.At, v.Message)
		}
	case err != nil:
		log.Fatal(err) // code, rule, subject, ref: signet explain REF has the rest
	default:
		log.Printf("stored as %s/%d", ack.Stream, ack.Sequence)
	}
}

// Publish many events, in order, without waiting for each.
func ExampleClient_PublishAsync() {
	ctx := context.Background()
	c, err := client.Connect(ctx, "", client.WithContext("dev-app"), client.WithMaxInFlight(4096))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	var futures []*client.Future
	for range 1000 {
		f, err := c.PublishAsync(ctx, "orders.created", client.NewEvent("com.example.tick", nil))
		if err != nil {
			log.Fatal(err)
		}
		futures = append(futures, f)
	}
	for _, f := range futures {
		if _, err := f.Wait(ctx); err != nil {
			log.Print(err)
		}
	}
}

// Handle stored events with a durable consumer. The handler sees verified events
// only; d.Principal is who published, by the signature of the broker.
func ExampleClient_Subscribe() {
	ctx := context.Background()
	c, err := client.Connect(ctx, "", client.WithContext("billing"),
		client.WithInvalidHandler(func(e client.InvalidEvent) {
			log.Printf("%s/%d on %s: %v", e.Stream, e.Sequence, e.NATSSubject, e.Err)
		}))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	sub, err := c.Subscribe(ctx, "orders.*.paid", func(_ context.Context, d *client.Delivery) error {
		if len(d.Event.Data) == 0 {
			return client.Permanent(errors.New("no order")) // not delivered again
		}
		log.Printf("%s by %s: %s", d.Event.ID, d.Principal, d.Event.Data)
		return nil // acknowledges; an error would bring the event back
	}, client.Durable("billing"), client.Concurrency(4))
	if err != nil {
		log.Fatal(err)
	}
	// On the way out: take nothing new, finish what is here.
	sub.Drain()
	<-sub.Closed()
}

// Read yesterday's events again, fast and in order, and then follow the stream.
func ExampleOrdered() {
	ctx := context.Background()
	c, err := client.Connect(ctx, "", client.WithContext("dev-app"))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	sub, err := c.Subscribe(ctx, "orders.>", func(_ context.Context, d *client.Delivery) error {
		fmt.Println(d.Sequence, d.NATSSubject, d.Event.Type)
		return nil
	}, client.Ordered(), client.FromTime(time.Now().Add(-24*time.Hour)))
	if err != nil {
		log.Fatal(err)
	}
	<-sub.Closed()
	log.Print(sub.Err())
}

// Work with the event type of the CloudEvents SDK.
func ExampleEvent_ToCloudEvent() {
	ev := &client.Event{ID: "1", Source: "/shop/checkout", Type: "com.example.order", Data: []byte("x")}
	ce, err := ev.ToCloudEvent()
	if err != nil {
		log.Fatal(err)
	}
	back, err := client.FromCloudEvent(ce)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(ce.Type(), back.Source, string(back.Data))
	// Output: com.example.order /shop/checkout x
}

// Decide on a retry of one's own.
func ExampleRetryable() {
	limited := &client.Error{Class: "rate-limited", RetryAfter: time.Second, EventID: "1"}
	denied := &client.Error{Class: "permission-denied"}
	fmt.Println(client.Retryable(limited), client.Retryable(denied), errors.Is(denied, client.ErrDenied))
	// Output: true false true
}

// Sign what is published with an event key, and read only what that producer signed.
func ExampleWithEventKeyFile() {
	ctx := context.Background()
	c, err := client.Connect(ctx, "", client.WithContext("dev-app"), client.WithEventKeyFile("checkout-events.seed"))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	ev := &client.Event{Type: "com.example.order.paid", DataContentType: client.ContentTypeJSON, Data: []byte(`{"id":7}`)}
	if _, err := c.Publish(ctx, "orders.7.paid", ev); err != nil {
		log.Fatal(err)
	}
	sub, err := c.Subscribe(ctx, "orders.*.paid", func(_ context.Context, d *client.Delivery) error {
		fmt.Println(d.Producer.Principal, d.Producer.KeyID)
		return nil
	}, client.RequireProducer("shop/checkout"))
	if err != nil {
		log.Fatal(err)
	}
	<-sub.Closed()
}

// Encrypt the payloads on some subjects to the recipients that the keyring has for them,
// and read them with the seed of such a recipient.
func ExampleWithEncryption() {
	ctx := context.Background()
	clinic, err := client.Connect(ctx, "", client.WithContext("clinic"),
		client.WithEncryption(client.Encryption{Subjects: []string{"care.>"}}))
	if err != nil {
		log.Fatal(err)
	}
	defer clinic.Close()
	if _, err := clinic.Publish(ctx, "care.7.temperature", client.NewEvent("com.example.temperature", []byte("39.5"))); err != nil {
		log.Fatal(err) // client.ErrEncryption: it was not sent
	}

	doctor, err := client.Connect(ctx, "", client.WithContext("doctor"),
		client.WithDecryption(client.Decryption{SeedFiles: []string{"doctor.recipient.seed"}}))
	if err != nil {
		log.Fatal(err)
	}
	defer doctor.Close()
	handle := func(_ context.Context, d *client.Delivery) error {
		fmt.Println(d.NATSSubject, string(d.Event.Data))
		return nil
	}
	if _, err := doctor.Subscribe(ctx, "care.>", handle, client.RequireEncryption()); err != nil {
		log.Fatal(err)
	}
}

// Say what is to become of an event that cannot be handled now, or ever.
func ExampleRetry() {
	maintenance := errors.New("the bank is closed")
	handle := func(_ context.Context, d *client.Delivery) error {
		switch {
		case len(d.Event.Data) == 0:
			return client.Reject("no order") // a dead letter
		case time.Now().Hour() < 6:
			return client.Retry(time.Hour, maintenance) // the policy says how often at most
		}
		return nil
	}
	fmt.Println(handle(context.Background(), &client.Delivery{Event: client.NewEvent("t", nil)}))
	// Output: no order
}

// Handle each event once, also over a restart, another consumer, a second publish.
func ExampleOnce() {
	ctx := context.Background()
	c, err := client.Connect(ctx, "", client.WithContext("billing"))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	charge := func(_ context.Context, d *client.Delivery) error {
		log.Printf("charging %s", d.Event.ID)
		return nil
	}
	once, err := client.Once(ctx, c, client.Seen{Bucket: "seen", ByEvent: true}, charge)
	if err != nil {
		log.Fatal(err)
	}
	sub, err := c.Subscribe(ctx, "orders.*.paid", once, client.Durable("billing"))
	if err != nil {
		log.Fatal(err)
	}
	<-sub.Closed()
}

// Handle the events of each customer in order, with eight workers here and as many in every
// other process that does the same.
func ExampleClient_SubscribeKeyed() {
	ctx := context.Background()
	c, err := client.Connect(ctx, "", client.WithContext("billing"))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	s, err := c.SubscribeKeyed(ctx, "orders.>", func(ctx context.Context, d *client.Delivery) error {
		log.Printf("%s: %s", d.Key, d.Event.ID)
		return ctx.Err()
	}, client.Keyed{Group: "billing", Bucket: "groups"}, client.Concurrency(8))
	if err != nil {
		log.Fatal(err)
	}
	<-s.Closed()
	log.Print(s.Err())
}

// Publish a reminder for tomorrow, which is of no use the day after.
func ExampleClient_PublishAt() {
	ctx := context.Background()
	c, err := client.Connect(ctx, "", client.WithContext("checkout"))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	tomorrow := time.Now().Add(24 * time.Hour)
	ev := client.NewEvent("com.example.reminder", nil)
	ev.ExpireAt(tomorrow.Add(24 * time.Hour))
	if _, err := c.PublishAt(ctx, "reminders.waiting", "reminders.due", tomorrow, ev, client.WithExpiry()); err != nil {
		log.Fatal(err)
	}
}

// Have the broker publish an event every night.
func ExampleSchedules_Put() {
	ctx := context.Background()
	c, err := client.Connect(ctx, "", client.WithContext("checkout"))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	_, err = client.SchedulesOf(c).Put(ctx, client.Schedule{
		Name: "nightly", Spec: "30 2 * * *", NATSSubject: "reports.wanted", Event: client.NewEvent("com.example.report.wanted", nil),
	})
	if err != nil {
		log.Fatal(err)
	}
}

// Store two events, or none.
func ExampleClient_PublishBatch() {
	ctx := context.Background()
	c, err := client.Connect(ctx, "", client.WithContext("checkout"))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	batch := []client.BatchEvent{
		{NATSSubject: "ledger.debit", Event: &client.Event{ID: "7-debit", Type: "com.example.debit"}},
		{NATSSubject: "ledger.credit", Event: &client.Event{ID: "7-credit", Type: "com.example.credit"}},
	}
	switch ack, err := c.PublishBatch(ctx, batch); {
	case errors.Is(err, client.ErrConflict):
		log.Print("it is stored already")
	case err != nil:
		log.Fatal(err) // says which event it was
	default:
		log.Printf("%d events, the last one at %d", ack.Count, ack.Last)
	}
}

// Follow the dead letters.
func ExampleDeadLetters() {
	ctx := context.Background()
	c, err := client.Connect(ctx, "", client.WithContext("support"))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	for letter, err := range client.DeadLetters(ctx, c, client.DeadLetterQuery{Follow: true}) {
		if err != nil {
			log.Print(err) // after one that is Retryable it goes on
			continue
		}
		log.Printf("%s on %s: %s", letter.Record.Reason, letter.Record.NATSSubject, letter.Record.Detail)
	}
}

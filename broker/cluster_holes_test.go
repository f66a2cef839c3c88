package broker_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client/admin"
)

// A node whose copy of a logged stream has a hole hands the lead on, and the log does not
// go over the hole while no copy is whole. Here none is.
func TestClusterLogHandsAHoleOn(t *testing.T) {
	var log logBuffer
	c := brokertest.NewCluster(t, 3, brokertest.Options{Policy: logPolicy, Log: &log})
	ctx := within(t)
	js := must(jetstream.New(must(c.Nodes[0].Inside("shop"))(t)))(t)
	stream := must(js.CreateStream(ctx, jetstream.StreamConfig{Name: "HELD", Subjects: []string{"held.>"}, MaxBytes: 16 << 20, Replicas: 3}))(t)
	for i := range 10 {
		must(js.Publish(ctx, "held.x", []byte(fmt.Sprint(i))))(t)
	}
	check(t, stream.DeleteMsg(ctx, 5)) // nobody can once the policy has the stream
	for _, n := range c.Nodes {
		text := string(must(os.ReadFile(n.State.Policy))(t))
		const held = "\n  - {name: HELD, subjects: [held.>], maxBytes: 16MiB, log: true}\nsubjects:"
		check(t, os.WriteFile(n.State.Policy, []byte(strings.Replace(text, "\nsubjects:", held, 1)), 0o600))
	}
	for _, n := range c.Nodes {
		check(t, n.Reload(ctx))
	}
	var apis []*admin.API // each node knows of its own log only
	for _, n := range c.Nodes {
		apis = append(apis, admin.New(n.Client("auditor")))
	}
	handed, faulty := false, false
	for !handed || !faulty {
		var seen []admin.LogStatus
		for _, api := range apis {
			if logs, err := api.Log().List(ctx); err == nil && len(logs) == 2 && logs[0].Stream == "HELD" {
				if seen = append(seen, logs[0]); logs[0].Size > 4 {
					t.Fatalf("logged over the hole: %+v", logs[0])
				}
				faulty = faulty || strings.Contains(logs[0].Fault, "damaged")
			}
		}
		handed = strings.Contains(log.String(), `"done":true,"tenant":"shop","stream":"HELD","message":"a copy with a hole hands`)
		select {
		case <-ctx.Done():
			t.Fatalf("handed on %v, fault %v: %+v", handed, faulty, seen)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

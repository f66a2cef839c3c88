package broker_test

import (
	"errors"
	"testing"

	"github.com/signetbus/signet/broker/store"
	"github.com/signetbus/signet/internal/wire"
)

// TestReadEscapeNarrowedStream: a principal that may read every subject of a stream may
// read all of it, by sequence too. So no policy takes a subject from a stream that holds
// events on it, and leaves them to readers who never had a grant for it.
func TestReadEscapeNarrowedStream(t *testing.T) {
	b := newBroker(t)
	writer, narrow := connect(t, b, "writer"), connect(t, b, "narrow")
	writer.publish(t, "orders.us.created", "SECRET")
	narrow.denied(t, "$JS.API.DIRECT.GET.ORDERS", map[string]any{"seq": 1}, wire.CodeFilterDenied)
	text := edit(t, shopPolicy, "{name: ORDERS, subjects: [orders.>], maxBytes: 16MiB}\n  - {name: PAYMENTS, subjects: [", "{name: ORDERS, subjects: [orders.eu.>], maxBytes: 16MiB}\n  - {name: PAYMENTS, subjects: [orders.checked, ")
	replacePolicy(t, b, text)
	if err := b.Reload(within(t)); !errors.Is(err, store.ErrUncovered) {
		t.Errorf("a policy without the subject: got %v, want ErrUncovered", err)
	}
	narrow.denied(t, "$JS.API.DIRECT.GET.ORDERS", map[string]any{"seq": 1}, wire.CodeFilterDenied)
	narrow.denied(t, "$JS.API.CONSUMER.CREATE.ORDERS.x", consumerRequest("ORDERS", map[string]any{"name": "x", "ack_policy": "none"}), wire.CodeFilterDenied)
}

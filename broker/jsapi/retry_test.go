package jsapi

import (
	"testing"

	"github.com/signetbus/signet/internal/wire"
)

// TestRetryQueues: a retry queue is read by whoever may read the consumer that it is for,
// and changed by nobody.
func TestRetryQueues(t *testing.T) {
	const (
		next, info, ack = "$JS.API.CONSUMER.MSG.NEXT.RETRY.", "$JS.API.CONSUMER.INFO.RETRY.", "$JS.ACK.RETRY."
		theirs          = "6_ORDERS_theirs"
	)
	by := func(owner string) OwnerFunc {
		return func(stream, consumer string) (string, bool, bool) {
			switch {
			case stream != wire.StreamRetry:
				return "", false, true
			case consumer == "6_ORDERS_unknown":
				return "", false, false
			case consumer == theirs, consumer == "6_METERS_m":
				return owner, true, true
			}
			return "", false, true
		}
	}
	for _, tt := range []struct{ name, who, owner, subject, body, want string }{
		{"the owner pulls", "other", "shop/other", next + theirs, "1", "forward"},
		{"the owner acknowledges", "other", "shop/other", ack + theirs + ".1.1.1.1.0", "", "forward"},
		{"the owner gives it up", "other", "shop/other", ack + theirs + ".1.1.1.1.0", "+TERM no", "forward"},
		{"the owner asks about it", "other", "shop/other", info + theirs, "", "forward"},
		{"a grant on the consumer shares it", "shared", "shop/other", next + theirs, "1", "forward"},
		{"so does one on all of the stream", "sharedall", "shop/other", ack + theirs + ".1.1.1.1.0", "", "forward"},
		{"nobody else pulls", "whole", "shop/other", next + theirs, "1", "ConsumerNotOwned"},
		{"nobody else acknowledges", "whole", "shop/other", ack + theirs + ".1.1.1.1.0", "", "ConsumerNotOwned"},
		{"nobody else asks", "whole", "shop/other", info + theirs, "", "ConsumerNotOwned"},
		{"nor for the broker's own", "sharedall", wire.BrokerAccount, next + theirs, "1", "ConsumerNotOwned"},
		{"nor for one without an owner", "sharedall", "", next + theirs, "1", "ConsumerNotOwned"},
		{"the owner who has lost every grant pulls nothing", "none", "shop/none", next + theirs, "1", "FilterDenied"},
		{"nor with the next acknowledgement", "none", "shop/none", ack + theirs + ".1.1.1.1.0", "+NXT", "FilterDenied"},
		{"it must be looked up first", "other", "shop/other", next + "6_ORDERS_unknown", "1", "owner"},
		{"one that is not there, which readers look for", "other", "shop/other", info + "6_ORDERS_none", "", "forward"},
		{"one that is not there, of a stream that is not granted", "none", "shop/none", info + "6_ORDERS_none", "", "NotFound"},
		{"a name that is none", "other", "shop/other", next + "mine", "1", "NotFound"},
		{"the owner does not delete it", "other", "shop/other", "$JS.API.CONSUMER.DELETE.RETRY." + theirs, "", "APIDenied"},
		{"nor change it", "other", "shop/other", "$JS.API.CONSUMER.CREATE.RETRY." + theirs, `{"stream_name":"RETRY","config":{"durable_name":"` + theirs + `","filter_subject":"$SIGNET.RETRY.ORDERS.theirs","ack_policy":"explicit"}}`, "FilterDenied"},
		{"nor make another", "whole", "", "$JS.API.CONSUMER.CREATE.RETRY.x", `{"stream_name":"RETRY","config":{"name":"x","filter_subject":"orders.>","ack_policy":"explicit"}}`, "FilterDenied"},
		{"nobody reads it by sequence", "whole", "", "$JS.API.STREAM.MSG.GET.RETRY", `{"seq":1}`, "FilterDenied"},
		{"nor by subject", "whole", "", "$JS.API.DIRECT.GET.RETRY", `{"last_by_subj":"orders.x"}`, "FilterDenied"},
		{"an administrator deletes none", "admin", "", "$JS.API.STREAM.MSG.DELETE.RETRY", `{"seq":1}`, "APIDenied"},
		{"nor a dead letter", "admin", "", "$JS.API.STREAM.MSG.DELETE.DLQ", `{"seq":1}`, "APIDenied"},
		{"nor purges them", "admin", "", "$JS.API.STREAM.PURGE.DLQ", "", "APIDenied"},
		{"nor the queues", "admin", "", "$JS.API.STREAM.PURGE.RETRY", "", "APIDenied"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := &Request{Principal: principal(tt.who), Session: session, Subject: tt.subject, Reply: inbox, Body: []byte(tt.body), MapInbox: mapInbox}
			if v := New(Config{}).Judge(r, by(tt.owner)); outcome(v) != tt.want {
				t.Errorf("%s on %s: got %s (%v), want %s", tt.who, tt.subject, outcome(v), v.Refusal, tt.want)
			}
		})
	}
	if p := principal("other"); !RetryReadsWithin(p, theirs, []string{"orders.*.paid"}) || RetryReadsWithin(p, theirs, nil) || RetryReadsWithin(p, "x", []string{"orders.*.paid"}) {
		t.Error("RetryReadsWithin")
	}
}

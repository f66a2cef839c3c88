package jsapi

import (
	"slices"
	"testing"

	"github.com/signetbus/signet/internal/wire"
)

// TestSchedules: no request of the table reads the stream of the schedules, changes it, or acts
// on its consumer, whoever asks; administrators see its size.
func TestSchedules(t *testing.T) {
	owner := func(string, string) (string, bool, bool) { return wire.BrokerAccount, true, true }
	judge := func(who, subject, body string) string {
		r := &Request{Principal: principal(who), Session: session, Subject: subject, Reply: inbox, Body: []byte(body), MapInbox: mapInbox}
		return outcome(New(Config{}).Judge(r, owner))
	}
	denied := []string{"APIDenied", "AdminDenied", "ConsumerNotOwned", "FilterDenied", "SubjectMalformed", "RequestMalformed"}
	for verb, row := range verbs {
		if row.min == 0 && row.max == 0 && row.apiType != "" && verb != "STREAM.INFO" {
			continue // not about a stream
		}
		for _, who := range []string{"admin", "whole", "sharedall", "none"} {
			for _, args := range []string{"", ".firings", ".firings.$SIGNET.SCHEDULE.>"} {
				for _, body := range []string{"", "1", "{}", `{"seq":1}`, `{"stream_name":"SIGNET_SCHEDULES","config":{"durable_name":"firings","ack_policy":"explicit"}}`} {
					subject := "$JS.API." + verb + "." + wire.StreamSchedules + args
					got := judge(who, subject, body)
					if who == "admin" && schedulesShown[verb] {
						continue
					}
					if !slices.Contains(denied, got) {
						t.Errorf("%s: %s %s: %s", who, subject, body, got)
					}
				}
			}
		}
	}
	if got := judge("admin", "$JS.API.STREAM.INFO."+wire.StreamSchedules, ""); got != "forward" {
		t.Errorf("the size, for an administrator: %s", got)
	}
	for _, body := range []string{"", "+ACK", "+TERM", "+NXT"} {
		for _, who := range []string{"admin", "sharedall"} {
			if got := judge(who, "$JS.ACK."+wire.StreamSchedules+".firings.1.1.1.1.0", body); !slices.Contains(denied, got) {
				t.Errorf("%s acknowledges: %s", who, got)
			}
		}
	}
}

package jsapi

import "testing"

// Every request of the table that is let in has an access on purpose: a new one that
// changes something must not miss the record.
func TestAccessOfEveryVerb(t *testing.T) {
	want := map[string]Access{
		"INFO": AccessOther, "STREAM.NAMES": AccessOther, "STREAM.INFO": AccessOther, "STREAM.PURGE": AccessDelete,
		"STREAM.MSG.GET": AccessRead, "DIRECT.GET": AccessRead,
		"CONSUMER.CREATE": AccessChange, "CONSUMER.DURABLE.CREATE": AccessChange, "CONSUMER.MSG.NEXT": AccessOther,
		"CONSUMER.INFO": AccessOther, "CONSUMER.DELETE": AccessDelete, "CONSUMER.UNPIN": AccessChange, "CONSUMER.RESET": AccessDelete,
		"STREAM.LIST": AccessOther, "STREAM.MSG.DELETE": AccessDelete, "CONSUMER.NAMES": AccessOther, "CONSUMER.LIST": AccessOther,
		"CONSUMER.PAUSE": AccessChange,
	}
	for name, row := range verbs {
		if row.judge == nil {
			continue
		}
		v := Verdict{}
		if row.apiType != "" {
			v.APIType = "io.nats.jetstream.api.v1." + row.apiType + "_response"
		}
		w, ok := want[name]
		if got := v.Access(); !ok || got != w {
			t.Errorf("%s: access %d, want %d (listed: %v)", name, got, w, ok)
		}
	}
}

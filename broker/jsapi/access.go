package jsapi

import "strings"

// Access is what a request that was let in does, for those who keep a record of it.
type Access uint8

const (
	// AccessOther: it neither changes anything nor returns stored events by itself.
	AccessOther Access = iota
	// AccessChange: it makes, changes or pauses a consumer.
	AccessChange
	// AccessDelete: it takes messages or a consumer away, or sends a consumer elsewhere in
	// its stream.
	AccessDelete
	// AccessRead: it returns stored events by subject or sequence.
	AccessRead
)

// accesses are those of the API types that are not AccessOther, without what all have
// around them.
var accesses = map[string]Access{
	"stream_purge": AccessDelete, "stream_msg_delete": AccessDelete,
	"consumer_delete": AccessDelete, "consumer_reset": AccessDelete,
	"consumer_create": AccessChange, "consumer_unpin": AccessChange, "consumer_pause": AccessChange,
	"stream_msg_get": AccessRead,
}

// Access says what the request of the verdict does. Pulls, acks and flow control are
// AccessOther, and cost one comparison.
func (v *Verdict) Access() Access {
	if v.APIType == "" {
		return AccessOther
	}
	name := strings.TrimPrefix(v.APIType, "io.nats.jetstream.api.v1.")
	return accesses[strings.TrimSuffix(name, "_response")]
}

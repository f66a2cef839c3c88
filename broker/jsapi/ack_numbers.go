package jsapi

import (
	"strconv"
	"strings"
)

// AckNumbers reads the number of the delivery, from 1, and the sequence in the stream out
// of an ack subject (see Ack). ok is false for what is no delivery of a server.
func AckNumbers(subject string) (attempt, sequence uint64, ok bool) {
	_, _, domain, _, ok := splitAck(subject)
	if !ok {
		return 0, 0, false
	}
	at := 4 // $JS, ACK, stream, consumer
	if domain != "" {
		at += 2
	}
	tokens := strings.Split(subject, ".")
	attempt, err := strconv.ParseUint(tokens[at], 10, 64)
	if err != nil || attempt == 0 {
		return 0, 0, false
	}
	sequence, err = strconv.ParseUint(tokens[at+1], 10, 64)
	return attempt, sequence, err == nil && sequence > 0
}

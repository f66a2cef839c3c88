package wire

import (
	"strconv"
	"strings"
)

// Names of what is redriven from the dead letters (docs/spec/dlq.md). All are written by
// the broker alone: clients may neither send Signet- headers nor publish under $SIGNET.
const (
	// StreamRetry is the stream of each tenant with the retry queues.
	StreamRetry = "RETRY"
	// PrefixRetry is before <stream>.<consumer>: the queue of one consumer.
	PrefixRetry = "$SIGNET.RETRY."
	// PrefixRedrive is before the sequence of a dead letter that is being redriven.
	PrefixRedrive = "$SIGNET.REDRIVE."

	// HeaderRedriveCount is how often an event was redriven, decimal, from 1.
	HeaderRedriveCount = "Signet-Redrive-Count"
	// HeaderRedriveLetter is the sequence of the dead letter in the DLQ.
	HeaderRedriveLetter = "Signet-Redrive-Letter"
	// HeaderRedriveStream, HeaderRedriveConsumer, HeaderRedriveSequence and
	// HeaderRedriveSubject say what a message of a retry queue was, and for whom.
	HeaderRedriveStream   = "Signet-Redrive-Stream"
	HeaderRedriveConsumer = "Signet-Redrive-Consumer"
	HeaderRedriveSequence = "Signet-Redrive-Sequence"
	HeaderRedriveSubject  = "Signet-Redrive-Subject"
	// PrefixRedriveHeader is before all of them.
	PrefixRedriveHeader = "Signet-Redrive-"

	// MetaReads is consumer metadata of a retry queue: the filters of the consumer that
	// failed, separated by spaces; > is its whole stream.
	MetaReads = "signet.reads"
)

// maxConsumerName is that of nats-server.
const maxConsumerName = 255

// RetrySubject is the subject of the retry queue of a consumer.
func RetrySubject(stream, consumer string) string { return PrefixRetry + stream + "." + consumer }

// RetryConsumer is the name of the durable in StreamRetry that reads the retry queue of a
// consumer: <length of stream>_<stream>_<consumer>, so that no two have the same. It is
// empty where that would be longer than a name may be.
func RetryConsumer(stream, consumer string) string {
	name := strconv.Itoa(len(stream)) + "_" + stream + "_" + consumer
	if stream == "" || consumer == "" || len(name) > maxConsumerName {
		return ""
	}
	return name
}

// RetryOrigin takes the name of a durable in StreamRetry apart.
func RetryOrigin(name string) (stream, consumer string, ok bool) {
	digits, rest, ok := strings.Cut(name, "_")
	n, err := strconv.Atoi(digits)
	if !ok || err != nil || n < 1 || n >= len(rest) || rest[n] != '_' {
		return "", "", false
	}
	stream, consumer = rest[:n], rest[n+1:]
	return stream, consumer, RetryConsumer(stream, consumer) == name
}

package policy

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/signetbus/signet/internal/wire"
)

var (
	tenantName    = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)
	principalName = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,62}$`)
	plainName     = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,62}$`)
	streamName    = regexp.MustCompile(`^[A-Z0-9_-]{1,64}$`)
	bucketName    = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
	schemaName    = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,127}$`)
	mediaType     = regexp.MustCompile(`^[a-z0-9][a-z0-9!#$&^_.+-]*/[a-z0-9][a-z0-9!#$&^_.+-]*$`)
	headerName    = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$")
)

func checkTenant(s string) (string, error) {
	if !tenantName.MatchString(s) {
		return "", fmt.Errorf("%q is not a tenant name: a-z, then a-z 0-9 -, at most 32", s)
	}
	if s == "sys" || s == "signet" {
		return "", fmt.Errorf("tenant name %q is reserved", s)
	}
	return s, nil
}

func checkStream(s string) (string, error) {
	switch {
	case !streamName.MatchString(s):
		return "", fmt.Errorf("%q is not a stream name: A-Z 0-9 _ -, at most 64", s)
	case s == wire.StreamDLQ, s == wire.StreamRetry, strings.HasPrefix(s, "KV_"), strings.HasPrefix(s, "OBJ_"), strings.HasPrefix(s, "SIGNET_"):
		return "", fmt.Errorf("stream name %q is reserved (DLQ, RETRY, KV_*, OBJ_*, SIGNET_*)", s)
	}
	return s, nil
}

func checkBucket(s string) (string, error) {
	if !bucketName.MatchString(s) {
		return "", fmt.Errorf("%q is not a bucket name: A-Z a-z 0-9 _ -, at most 64", s)
	}
	return s, nil
}

func checkName(pattern *regexp.Regexp, what string) func(string) (string, error) {
	return func(s string) (string, error) {
		if !pattern.MatchString(s) {
			return "", fmt.Errorf("%q is not a %s name (%s)", s, what, strings.Trim(pattern.String(), "^$"))
		}
		return s, nil
	}
}

// checkFilter is the grammar of all subject patterns, with faults that say more.
func checkFilter(s string) (string, error) {
	if err := wire.CheckFilter(s); err != nil {
		return "", fmt.Errorf("%q: %s", s, strings.TrimPrefix(err.Error(), "wire: "))
	}
	return s, nil
}

// checkEventFilter is for patterns of event and ephemeral subjects, which keep out
// of the subjects that mean something else.
func checkEventFilter(s string) (string, error) {
	if strings.HasPrefix(s, "$") {
		return "", fmt.Errorf("%q: subjects that start with $ are the system's; use kv, objects, discover or admin", s)
	}
	if _, err := checkFilter(s); err != nil {
		return "", err
	}
	first, _, _ := strings.Cut(s, ".")
	switch {
	case first == "rpc":
		return "", fmt.Errorf("%q: rpc subjects are granted by call and serve", s)
	case first[0] == '_':
		return "", fmt.Errorf("%q: subjects that start with _ are the system's", s)
	}
	return s, nil
}

// checkDeclared is for subjects of streams and ephemeral subjects: a wildcard in
// front would also take in rpc, inbox and system subjects.
func checkDeclared(s string) (string, error) {
	if _, err := checkEventFilter(s); err != nil {
		return "", err
	}
	if s[0] == '*' || s[0] == '>' {
		return "", fmt.Errorf("%q: the first token of a declared subject must be literal", s)
	}
	return s, nil
}

// maxEndpoint leaves room for "rpc.".
const maxEndpoint = wire.MaxSubjectBytes - len(wire.PrefixRPC)

func checkCall(s string) (string, error) {
	if _, err := checkFilter(s); err != nil {
		return "", err
	}
	tokens := strings.Count(s, ".") + 1
	switch {
	case len(s) > maxEndpoint || tokens >= wire.MaxSubjectTokens:
		return "", fmt.Errorf("%q is too long for an endpoint", s)
	case strings.HasPrefix(s, wire.PrefixRPC) || s == "rpc":
		return "", fmt.Errorf("%q: write service.endpoint, without rpc", s)
	case tokens < 2 && s != ">":
		return "", fmt.Errorf("%q: write service.endpoint, service.* or service.>", s)
	}
	return s, nil
}

func checkServe(s string) (string, error) {
	if _, err := checkCall(s); err != nil {
		return "", err
	}
	if s[0] == '*' || s[0] == '>' {
		return "", fmt.Errorf("%q: the service that is served must be named, no wildcard", s)
	}
	return s, nil
}

func checkConsumer(s string) (string, error) {
	if _, err := checkFilter(s); err != nil {
		return "", err
	}
	stream, consumer, ok := strings.Cut(s, ".")
	if !ok || strings.Contains(consumer, ".") || consumer == ">" || stream == "*" {
		return "", fmt.Errorf("%q: write STREAM.CONSUMER or STREAM.*", s)
	}
	return s, nil
}

// natsHeaders are the Nats- headers that can be granted. The others write
// elsewhere, skip storage or are the server's own; Nats-Msg-Id needs no grant.
var natsHeaders = []string{
	"Nats-Batch-Commit", "Nats-Batch-Id", "Nats-Batch-Sequence", FastBatch, "Nats-Expected-Last-Msg-Id", "Nats-Expected-Last-Sequence", "Nats-Expected-Last-Subject-Sequence",
	"Nats-Expected-Last-Subject-Sequence-Subject", "Nats-Expected-Stream", "Nats-Rollup",
	"Nats-Schedule", Cron, "Nats-Schedule-TTL", "Nats-Schedule-Target", "Nats-TTL",
}

// IsHeaderRight reports whether the name is that of a header which is a right.
func IsHeaderRight(name string) bool { return slices.Contains(natsHeaders, name) }

// FastBatch is the right to publish in fast batches. It is no header: the batch is named
// in the reply subject.
const FastBatch = "Nats-Fast-Batch"

func checkHeader(s string) (string, error) {
	lower := strings.ToLower(s)
	switch {
	case !headerName.MatchString(s):
		return "", fmt.Errorf("%q is not a header name", s)
	case strings.HasPrefix(lower, "nats-") && !slices.Contains(natsHeaders, s):
		return "", fmt.Errorf("%q cannot be granted%s", s, suggest(s, natsHeaders, "Nats- headers that can"))
	case strings.HasPrefix(lower, "signet-"), strings.HasPrefix(lower, wire.PrefixAttribute):
		return "", fmt.Errorf("%q cannot be granted: Signet- and ce- headers are not capabilities", s)
	}
	return s, nil
}

// checkPrefixPattern is for sources and types: exact, or a prefix and one *.
func checkPrefixPattern(s string) (string, error) {
	switch body := strings.TrimSuffix(s, "*"); {
	case s == "" || len(s) > 256:
		return "", errors.New("1 to 256 characters are wanted")
	case strings.Contains(body, "*"):
		return "", fmt.Errorf("%q: a * may only stand at the end", s)
	case strings.ContainsFunc(body, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		return "", fmt.Errorf("%q: printable ASCII without spaces is wanted", s)
	}
	return s, nil
}

func checkArea(s string) (string, error) {
	if !slices.Contains(AdminAreas, s) {
		return "", fmt.Errorf("unknown admin area %q%s", s, suggest(s, AdminAreas, "areas"))
	}
	return s, nil
}

func checkNkey(s string) (string, error) { return s, checkUserNkey(s) }

func checkMediaType(s string) (string, error) {
	if !mediaType.MatchString(s) {
		return "", fmt.Errorf("%q is not a media type in lower case without parameters, such as application/json", s)
	}
	return s, nil
}

func checkFragment(s string) (string, error) {
	if len(s) < 2 || len(s) > 512 || s[0] != '#' {
		return "", fmt.Errorf("%q is not a fragment of the schema text, such as \"#/definitions/order\"", s)
	}
	return s, nil
}

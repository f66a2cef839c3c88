package acl

import (
	"strings"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

// Class is what a subject means, and so which checks stand before it.
type Class uint8

// The classes. The zero value is denied.
const (
	ClassDenied    Class = iota // nothing declares it
	ClassEvent                  // captured by a declared stream
	ClassEphemeral              // declared core subject
	ClassRPC                    // rpc.<service>.<endpoint>
	ClassKV                     // $KV.<bucket>.<key>
	ClassObject                 // $O.<bucket>.<chunk or metadata>
	ClassService                // $SRV.<verb>...
	ClassJSAPI                  // $JS.API.> and $SYS.REQ.USER.INFO: the read guard decides
	ClassJSAck                  // $JS.ACK.>
	ClassJSFC                   // $JS.FC.>
	ClassInbox                  // _INBOX.>
	ClassRouted                 // _R_.>
	ClassAdmin                  // $SIGNET.API.<area>.<verb>
)

var classNames = [...]string{
	"denied", "event", "ephemeral", "rpc", "kv", "object", "service", "js-api", "js-ack", "js-fc", "inbox", "routed", "admin",
}

// String returns the class in one word.
func (c Class) String() string {
	if int(c) < len(classNames) {
		return classNames[c]
	}
	return "denied"
}

// UserInfo is the one system subject that clients may ask.
const UserInfo = "$SYS.REQ.USER.INFO"

// Classify returns the class of a literal subject in tenant t. It does not ask
// for grants. Subjects of a class with too few tokens are denied.
func Classify(t *policy.Tenant, subject string) Class {
	if subject == "" {
		return ClassDenied
	}
	switch subject[0] {
	case '$':
		return classifySystem(subject)
	case '_':
		switch {
		case after(subject, wire.PrefixInbox):
			return ClassInbox
		case after(subject, wire.PrefixRouted):
			return ClassRouted
		}
		return ClassDenied
	}
	if strings.HasPrefix(subject, wire.PrefixRPC) {
		if strings.Count(subject, ".") < 2 {
			return ClassDenied
		}
		return ClassRPC
	}
	if t.StreamFor(subject) != nil {
		return ClassEvent
	}
	if t.IsEphemeral(subject) {
		return ClassEphemeral
	}
	return ClassDenied
}

func after(subject, prefix string) bool {
	return len(subject) > len(prefix) && strings.HasPrefix(subject, prefix)
}

func classifySystem(subject string) Class {
	switch {
	case after(subject, wire.PrefixJSAck):
		return ClassJSAck
	case after(subject, wire.PrefixJSAPI), subject == UserInfo:
		return ClassJSAPI
	case after(subject, wire.PrefixKV):
		if _, _, ok := KVBucket(subject); ok {
			return ClassKV
		}
	case after(subject, wire.PrefixObject):
		if _, ok := ObjectBucket(subject); ok {
			return ClassObject
		}
	case after(subject, wire.PrefixService):
		return ClassService
	case after(subject, wire.PrefixJSFC):
		return ClassJSFC
	case after(subject, wire.PrefixAdmin):
		if _, verb, ok := AdminArea(subject); ok && verb != "" {
			return ClassAdmin
		}
	}
	return ClassDenied
}

// KVBucket splits "$KV.<bucket>.<key>"; the key may have dots.
func KVBucket(subject string) (bucket, key string, ok bool) {
	rest, ok := strings.CutPrefix(subject, wire.PrefixKV)
	if !ok {
		return "", "", false
	}
	bucket, key, _ = strings.Cut(rest, ".")
	return bucket, key, bucket != "" && key != ""
}

// ObjectBucket returns the bucket of "$O.<bucket>.C.<chunks>" and "$O.<bucket>.M.<name>".
func ObjectBucket(subject string) (bucket string, ok bool) {
	rest, ok := strings.CutPrefix(subject, wire.PrefixObject)
	if !ok {
		return "", false
	}
	bucket, rest, _ = strings.Cut(rest, ".")
	kind, name, _ := strings.Cut(rest, ".")
	return bucket, bucket != "" && (kind == "C" || kind == "M") && name != ""
}

// AdminArea splits "$SIGNET.API.<area>.<verb>".
func AdminArea(subject string) (area, verb string, ok bool) {
	rest, ok := strings.CutPrefix(subject, wire.PrefixAdmin)
	if !ok {
		return "", "", false
	}
	area, verb, _ = strings.Cut(rest, ".")
	return area, verb, area != "" && verb != ""
}

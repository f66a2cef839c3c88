package dlq

import "github.com/signetbus/signet/internal/wire"

// Reason says in one word why something became a dead letter. It stands in the
// subject, so reasons are wire format: never renamed.
type Reason string

// The reasons.
const (
	ReasonIdentity   Reason = "identity"   // who sent it could not be established
	ReasonACL        Reason = "acl"        // no grant
	ReasonMalformed  Reason = "malformed"  // it breaks a format
	ReasonSignature  Reason = "signature"  // a signature is bad, missing or forbidden
	ReasonSchema     Reason = "schema"     // the payload breaks the schema of its subject
	ReasonRate       Reason = "rate"       // a rate limit was spent
	ReasonSize       Reason = "size"       // too large
	ReasonDelivery   Reason = "delivery"   // a consumer had it as often as allowed
	ReasonTerminated Reason = "terminated" // a consumer gave it up
	ReasonHandler    Reason = "handler"    // the program behind a consumer failed on it, and said so (HandlerPrefix)
	ReasonTTL        Reason = "ttl"        // it expired before a consumer took it
	ReasonBridge     Reason = "bridge"     // a bridge could not pass it on
	ReasonInternal   Reason = "internal"   // the broker could not decide or store
)

// HandlerPrefix begins the text of a +TERM that is not the verdict of a program but its
// failure: ReasonHandler, where it would be ReasonTerminated.
const HandlerPrefix = "handler: "

// Reasons returns every reason, in the order of the specification.
func Reasons() []Reason {
	return []Reason{
		ReasonIdentity, ReasonACL, ReasonMalformed, ReasonSignature, ReasonSchema, ReasonRate,
		ReasonSize, ReasonDelivery, ReasonTerminated, ReasonHandler, ReasonTTL, ReasonBridge, ReasonInternal,
	}
}

// Valid reports whether r is one of Reasons.
func (r Reason) Valid() bool {
	for _, known := range Reasons() {
		if r == known {
			return true
		}
	}
	return false
}

// StoredByDefault reports whether the whole message is kept when the policy does
// not say. Refusals that a client without any grant can cause at will are not: it
// could fill the stream with them.
func (r Reason) StoredByDefault() bool {
	switch r {
	case ReasonSignature, ReasonSchema, ReasonDelivery, ReasonTerminated, ReasonHandler, ReasonTTL, ReasonBridge:
		return true
	default:
		return false
	}
}

// CodeStoredByDefault is StoredByDefault of the reason of code, but of a producer
// signature that came too late, a second time or not at all: a wrong clock, a retry or a
// missing setting makes those, for every message, and the bytes say nothing more. A
// payload that should have been encrypted is not kept in the clear.
func CodeStoredByDefault(code wire.Code) bool {
	switch code {
	case wire.CodeOutsideReplayWindow, wire.CodeReplayed, wire.CodeSignatureRequired:
		return false
	case wire.CodeEncryptionRequired:
		return false
	default:
		return ReasonOf(code).StoredByDefault()
	}
}

// ReasonOf returns the reason of a refusal at ingress.
func ReasonOf(code wire.Code) Reason {
	switch code.Class() {
	case wire.ClassUnauthenticated:
		return ReasonIdentity
	case wire.ClassPermissionDenied:
		return ReasonACL
	case wire.ClassMalformed:
		return ReasonMalformed
	case wire.ClassBadSignature:
		return ReasonSignature
	case wire.ClassSchemaViolation:
		return ReasonSchema
	case wire.ClassRateLimited:
		return ReasonRate
	case wire.ClassTooLarge:
		return ReasonSize
	default:
		return ReasonInternal
	}
}

// Stage says where something became a dead letter.
type Stage string

// The stages.
const (
	StageIngress  Stage = "ingress"  // refused by the gate; it was never stored
	StageConsumer Stage = "consumer" // stored, but not deliverable
	StageBridge   Stage = "bridge"   // failed in a bridge
)

// Valid reports whether s is a known stage.
func (s Stage) Valid() bool { return s == StageIngress || s == StageConsumer || s == StageBridge }

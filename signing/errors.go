package signing

import "errors"

// Errors of this package. All but ErrSeed, ErrProducerSeed, ErrURI and ErrNoKeyring say that one event (or
// its attestation) is not to be trusted.
//
// ErrNoKeyring is about the reader, not about the event. ErrUnknownKey may be
// either: a key newer than the reader's keyring looks the same as a forged one, so
// a reader fetches the keyring anew, once, before it gives an event up.
var (
	ErrMissing      = errors.New("signing: event has no attestation")
	ErrMalformed    = errors.New("signing: malformed event or attestation")
	ErrUnknownKey   = errors.New("signing: key is not in the keyring")
	ErrKeyNotValid  = errors.New("signing: key may not sign this, or not at the recorded time")
	ErrBadSignature = errors.New("signing: signature does not match the event")
	ErrNoKeyring    = errors.New("signing: no keyring, or it has expired")
	ErrNoSignature  = errors.New("signing: event has no producer signature")
	// ErrURI: an event that its producer cannot sign, since others would change it by reading it.
	ErrURI          = errors.New("signing: source or dataschema changes when it is parsed as a URI and printed again")
	ErrProducerSeed = errors.New("signing: not an nkeys seed of type account or user")
	ErrSeed         = errors.New("signing: not an nkeys seed of type server or account")
)

package signing

import (
	"fmt"

	"github.com/signetbus/signet/signing/keyring"
)

// AttackReportType is the payload type of the report of a run of signet attack.
const AttackReportType = "application/vnd.signet.attack-report.v1+json"

// VerifyAttackReport checks the envelope of a report that SignStatement wrote: the type,
// and the signature under a key of the role policy of ring, which is whose run changed the
// policy. It returns the payload and the key; whether the key is that of the principal that
// the payload names, and was valid then, is the caller's to check. The expiry of ring is not
// looked at.
//
// Errors: ErrStatement, ErrNoKeyring, ErrUnknownKey, ErrKeyNotValid (the key has another
// role), ErrBadSignature.
func VerifyAttackReport(doc []byte, ring *keyring.Ring) (payload []byte, key keyring.Key, err error) {
	payload, key, err = verifyStatement(doc, AttackReportType, keyring.RolePolicy, ring)
	if err != nil {
		err = fmt.Errorf("signing: report: %w", err)
	}
	return payload, key, err
}

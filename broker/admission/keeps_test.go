package admission

import (
	"testing"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

func TestKeeps(t *testing.T) {
	for _, tt := range []struct {
		code    wire.Code
		failure policy.Failure
		want    bool
	}{
		{wire.CodeSchemaViolation, policy.FailureDefault, true},
		{wire.CodeAttestationForbidden, policy.FailureDefault, true},
		{wire.CodeProducerSignatureInvalid, policy.FailureDefault, true},
		{wire.CodeOutsideReplayWindow, policy.FailureDefault, false},
		{wire.CodeReplayed, policy.FailureDefault, false},
		{wire.CodeSignatureRequired, policy.FailureDefault, false},
		{wire.CodeSignatureRequired, policy.FailureDeadLetter, true},
		{wire.CodeEncryptionRequired, policy.FailureDefault, false},
		{wire.CodeEncryptionRequired, policy.FailureDeadLetter, true},
		{wire.CodeEncryptionNotDeclared, policy.FailureDefault, true},
		{wire.CodePublishDenied, policy.FailureDefault, false},
		{wire.CodeRateLimited, policy.FailureDefault, false},
		{wire.CodePayloadTooLarge, policy.FailureDefault, false},
		{wire.CodeEventMalformed, policy.FailureDefault, false},
		{wire.CodeInternal, policy.FailureDefault, false},
		{wire.CodeSchemaViolation, policy.FailureReject, false},
		{wire.CodePublishDenied, policy.FailureDeadLetter, true},
		{wire.CodeAuthFailed, policy.FailureDeadLetter, false},
	} {
		if got := keeps(tt.code, tt.failure); got != tt.want {
			t.Errorf("keeps(%s, %d) = %v, want %v", tt.code, tt.failure, got, tt.want)
		}
	}
}

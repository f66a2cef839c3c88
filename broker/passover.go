package broker

import (
	"errors"
	"fmt"

	"github.com/signetbus/signet/broker/policy"
)

// A version of the policy that was applied may revoke somebody. It comes into force also
// where the other files of this node cannot be used, of which a reload reads all together: a
// certificate that is half written, or an authority's file with a wrong mode, must not keep in who
// shall go. What was in force of them stays; log and health say so.

var errPassedOver = errors.New("broker: the applied policy is in force, and files of this node were passed over")

// takes reports whether m brings a version of the policy that old does not have.
func takes(m, old *material) bool { return m.applied.version() > old.applied.version() }

// passOver goes on with the trust and the keys of old where those of the files are faulty,
// and returns what remains of the errors: names in policy files that nobody is given. m has a
// policy.
func (m *material) passOver(old *material, trustErr, keysErr error) error {
	if trustErr != nil && m.trust == nil {
		m.pass(trustErr)
		m.trust = old.trust
		trustErr = m.trust.check(m.policy)
		if m.applied.holds() {
			m.ungiven, trustErr = policy.Faults(trustErr), nil
		}
	}
	if keysErr != nil {
		m.pass(keysErr)
		m.ring, m.ringDoc, m.ringNote = old.ring, old.ringDoc, old.ringNote
		m.signer, m.signers, m.shown, m.mute = old.signer, old.signers, old.shown, old.mute
	}
	return trustErr
}

func (m *material) pass(err error) {
	if m.passed == nil {
		m.passed = errPassedOver
	}
	m.passed = fmt.Errorf("%w: %w", m.passed, err)
}

// reloadCertificate reads that of the client port.
func reloadCertificate(b *Broker, m, old *material) error {
	err := b.cert.Reload()
	if err != nil && takes(m, old) {
		m.pass(err)
		err = nil
	}
	if m.passed != nil {
		b.log.Error().Err(m.passed).Uint64("version", m.applied.version()).Msg("repair the files, and they are read again; what they were stays in force until then")
	}
	return err
}

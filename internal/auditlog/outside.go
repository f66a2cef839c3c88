package auditlog

import (
	"errors"
	"fmt"
	"time"

	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing/tlog"
)

// provesNothing tells a checkpoint of a time at which its key was not valid, or that has not
// come for this reader, from one that is forged: a clock was wrong.
func provesNothing(err error) bool {
	return errors.Is(err, tlog.ErrKeyNotValid) || errors.Is(err, tlog.ErrFuture)
}

// ExpectLog holds the log of the heads against a checkpoint of it that was kept elsewhere
// and verified: the log must begin with it. newest is the checkpoint that the broker shows,
// hashes its proof; ExpectLogged takes no head under another one from then on. A log that
// was begun anew, or that the broker does not show or prove, contradicts nothing, and leaves
// the trail unproved; one that has another history is a fault of the trail.
//
// Errors: ErrLogged for a newest that is no signed checkpoint of such a log.
func ExpectLog(v *Verifier, kept *tlog.Note, newest string, hashes [][]byte) error {
	was := fmt.Sprintf("the checkpoint of %s of %s that was kept", kept.Time.Format(time.RFC3339), kept.Origin)
	if newest == "" {
		v.Open("", "the broker shows no log of the heads, so nothing holds to "+was)
		return nil
	}
	note, err := tlog.ParseNote([]byte(newest))
	if err == nil && (note.Origin.Tenant != wire.BrokerAccount || note.Origin.Stream != wire.StreamHeads) {
		err = fmt.Errorf("the checkpoint is of another log, %s", note.Origin)
	}
	if err == nil {
		_, err = note.VerifyAt(v.ring, time.Now())
	}
	if provesNothing(err) {
		v.Open("", "the last checkpoint of the log of the heads proves nothing: "+err.Error())
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: the last checkpoint: %w", ErrLogged, err)
	}
	v.log = newest
	proof := make([]tlog.Hash, 0, len(hashes))
	for _, h := range hashes {
		if len(h) != len(tlog.Hash{}) {
			return fmt.Errorf("%w: a hash of the proof of consistency has %d bytes", ErrLogged, len(h))
		}
		proof = append(proof, tlog.Hash(h))
	}
	if len(proof) == 0 && kept.Origin.String() == note.Origin.String() && kept.Size > 0 && kept.Size < note.Size {
		v.Open("", "the broker gives no proof that the log of the heads begins with "+was)
		return nil
	}
	switch err := tlog.CheckConsistency(&kept.Checkpoint, &note.Checkpoint, proof); {
	case errors.Is(err, tlog.ErrOtherLog):
		v.Open("", fmt.Sprintf("the log of the heads was begun anew at %s, so it does not hold to %s: if nobody did that on purpose (signet log restart --heads), somebody has taken the log away", note.Origin.ID(), was))
	case err != nil:
		v.LogFault(fmt.Sprintf("it does not begin with %s: %v", was, err))
	}
	return nil
}

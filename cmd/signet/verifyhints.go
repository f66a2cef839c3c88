package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/signetbus/signet/internal/auditlog"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
	"github.com/signetbus/signet/signing/tlog"
)

// otherFile names what doc is, if it is another file of Signet than a saved event, and
// which command reads it. Empty: it is none that is known. It believes nothing: doc may
// say of itself what it likes, and is refused in any case.
func otherFile(doc []byte) string {
	var is struct {
		Format      string `json:"format"`
		PayloadType string `json:"payloadType"`
		Audit       string `json:"audit"`
	}
	if json.Unmarshal(doc, &is) != nil {
		return ""
	}
	family, _, _ := strings.Cut(tlog.ProofFormat, "/v")
	switch {
	case is.Format == tlog.ProofFormat:
		return "it is a proof of signet prove that was printed again: its bytes count, also line ends and blanks; get the file as it was written"
	case strings.HasPrefix(is.Format, family+"/"):
		return fmt.Sprintf("it is a proof of the format %.64q, and this release knows %s: use the signet that wrote it, or a newer one", is.Format, tlog.ProofFormat)
	case is.PayloadType == signing.ReceiptType:
		return "it is a signed acknowledgement, not an event: signet verify --receipt FILE"
	case is.PayloadType == keyring.PayloadType:
		return "it is a keyring, not an event: signet keys show FILE"
	case is.PayloadType == auditlog.HeadType:
		return "it is a head of the audit trail, not an event: signet audit verify --head FILE"
	case is.Audit != "":
		return "it is an export of the audit trail, not an event: signet audit verify FILE"
	}
	return ""
}

// aheadOfClock says that what was verified is of a time to come. Empty: it is not, or by
// less than clocks may differ. It is no refusal: which of the two clocks is wrong cannot
// be known here, and which key was valid does not hang on this one.
func aheadOfClock(t, now time.Time) string {
	if ahead := t.Sub(now); ahead > tlog.MaxSkew {
		return fmt.Sprintf("%s ahead of the clock here, which says %s: one of the two is WRONG", ahead.Round(time.Second), now.UTC().Format(time.RFC3339))
	}
	return ""
}

// clockNote is clock, what aheadOfClock said, at the end of a line.
func clockNote(clock string) string {
	if clock == "" {
		return ""
	}
	return "  (" + clock + ")"
}

// exportFacts words what an export of the audit trail says of itself, and what it was
// judged by. The keyring in it may have expired, as an export is kept for years: then a
// newer one may have revoked keys.
func exportFacts(x *auditlog.Export, now time.Time) string {
	text := fmt.Sprintf("closed %s, keyring version %d", x.Closed.Format(time.RFC3339), x.Keyring)
	if x.Keyring != x.Within {
		text += fmt.Sprintf(" (in the export: %d)", x.Within)
	}
	if !now.Before(x.Expires) {
		text += fmt.Sprintf(", expired %s: a newer one may have revoked keys (--keyring)", stamp(x.Expires))
	}
	if ahead := aheadOfClock(x.Closed, now); ahead != "" {
		text += "; closed " + ahead
	}
	return text
}

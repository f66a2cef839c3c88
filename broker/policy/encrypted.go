package policy

import "github.com/signetbus/signet/internal/wire"

// checkEncrypted refuses rules for encrypted payloads that nothing could keep, and ones
// that take the demand of a wider rule back without a word: the most specific rule holds
// alone, so one that was written for a limit would let the payload in in the clear.
func (m *merged) checkEncrypted(f *faults) {
	for _, b := range m.bindings {
		switch {
		case !b.Encrypted:
			m.checkPlain(b, f)
		case isRPC(b.Match):
			f.add(b.At, "subject rule %s: encrypted: true is for events, requests are not events", b.Match)
		case b.schema.text != "":
			f.add(b.At, "subject rule %s: encrypted: true and schema: the broker cannot see what is encrypted; leave one of them out", b.Match)
		case b.ContentType != "":
			f.add(b.At, "subject rule %s: encrypted: true and contentType: the content type of an encrypted payload is %s, and the other is encrypted with it; leave contentType out",
				b.Match, wire.EncryptedContentType)
		}
	}
}

func (m *merged) checkPlain(b *bindingDecl, f *faults) {
	if b.plainSaid {
		return
	}
	for _, wider := range m.bindings {
		if !wider.Encrypted || wider.Match == b.Match || isRPC(wider.Match) != isRPC(b.Match) || !wire.Subset(b.Match, wider.Match) {
			continue
		}
		f.add(b.At, "subject rule %s: it holds in place of %s at %s, which has encrypted: true; say encrypted: true here too, or encrypted: false to do without",
			b.Match, wider.Match, wider.At)
		return
	}
}

package admission

import (
	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing/payload"
)

// requireEncryption is what the subjects section demands of payloads that the broker
// cannot see: that they have the encrypted form. That they are encrypted with a key that
// exists, only a recipient can tell. It comes before every check whose refusals are kept
// whole as dead letters: no payload may get onto the disk in the clear by being wrong in
// a second way.
func requireEncryption(rt *route, e *cloudevent.Event) *wire.Refusal {
	if !demandsEncryption(rt) {
		return nil
	}
	refuse := func(detail string) *wire.Refusal {
		return wire.Refuse(wire.CodeEncryptionRequired, rt.binding.Rule, detail)
	}
	contentType := e.ContentType
	if len(contentType) == 0 {
		contentType = rt.mediaType // as complete fills it in
	}
	if string(contentType) != wire.EncryptedContentType {
		return refuse("want datacontenttype " + wire.EncryptedContentType)
	}
	if err := payload.CheckKeyID(e.Get(wire.AttrEncryptionKey)); err != nil {
		return refuse("attribute " + wire.AttrEncryptionKey + ": " + err.Error())
	}
	if err := payload.CheckFrame(e.Data); err != nil {
		return refuse(err.Error())
	}
	return nil
}

// schemaBlinded refuses an encrypted payload where there is a schema that it would have
// to match.
func schemaBlinded(rt *route, e *cloudevent.Event) *wire.Refusal {
	if rt.validator == nil || rt.binding.Encrypted || string(e.ContentType) != wire.EncryptedContentType {
		return nil
	}
	return rt.judged(wire.Refuse(wire.CodeEncryptionNotDeclared, rt.binding.Rule, "schema "+rt.schemaName))
}

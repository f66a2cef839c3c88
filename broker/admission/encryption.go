package admission

import (
	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing/payload"
)

// checkEncryption is what the subjects section demands of payloads that the broker
// cannot see: the encrypted form, or not the encrypted form. That they are encrypted
// with a key that exists, only a recipient can tell.
func checkEncryption(rt *route, e *cloudevent.Event) *wire.Refusal {
	if rt.binding == nil {
		return nil
	}
	encrypted := string(e.ContentType) == wire.EncryptedContentType
	if !rt.binding.Encrypted {
		if encrypted && rt.validator != nil {
			return wire.Refuse(wire.CodeEncryptionNotDeclared, rt.binding.Rule, "schema "+rt.schemaName)
		}
		return nil
	}
	refuse := func(detail string) *wire.Refusal {
		return wire.Refuse(wire.CodeEncryptionRequired, rt.binding.Rule, detail)
	}
	if !encrypted {
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

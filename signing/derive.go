package signing

import (
	"bytes"

	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
)

// What a reader can derive is left out of the headers of an attested event, since
// header bytes are what costs readers and stores most. docs/spec/envelope.md
// section 5 is the rule; Restore is its reading half, Shorten its writing half.
var (
	nameAuthType       = []byte(wire.AttrAuthType)
	nameRecordedTime   = []byte(wire.AttrRecordedTime)
	defaultAuthType    = []byte(wire.DefaultAuthType)
	defaultContentType = []byte(wire.DefaultContentType)
)

// Shorten takes from an attested event what Restore gives back: authtype and
// datacontenttype if they have their default value, and recordedtime if it is the
// same text as time. It does not allocate.
func Shorten(e *cloudevent.Event) {
	if bytes.Equal(e.ContentType, defaultContentType) {
		e.ContentType = nil
	}
	if bytes.Equal(e.Get(wire.AttrAuthType), defaultAuthType) {
		e.DelExt(wire.AttrAuthType)
	}
	if len(e.Time) > 0 && bytes.Equal(e.Get(wire.AttrRecordedTime), e.Time) {
		e.DelExt(wire.AttrRecordedTime)
	}
}

// Restore completes an event that was read from NATS headers, in place; its new
// values are views of constants and of e. An event that has no attestation is left
// as it is. Whoever reads events from headers calls it before Verify or Expand: an
// event that is complete stays the same.
func Restore(e *cloudevent.Event) {
	if len(e.Get(wire.AttrAttestation)) == 0 {
		return
	}
	if len(e.ContentType) == 0 {
		e.ContentType = defaultContentType
	}
	if len(e.Get(wire.AttrAuthType)) == 0 {
		e.SetExt(nameAuthType, defaultAuthType)
	}
	if len(e.Time) > 0 && len(e.Get(wire.AttrRecordedTime)) == 0 {
		e.SetExt(nameRecordedTime, e.Time)
	}
}

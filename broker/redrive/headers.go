package redrive

import (
	"strconv"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/broker/store"
	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
)

// without is the original header block without some headers, a copy; empty if nothing is
// left. ok is false, with a verdict, for a block that cannot be read.
func (l *letter) without(drop func(name []byte) bool) (block []byte, ok bool) {
	h, ok := l.parse(l.rec.Header)
	if !ok {
		return nil, false
	}
	block = append(block, wire.HeaderLine...)
	for _, line := range h.All() {
		if !drop(line.Name) {
			block = wire.AppendHeader(block, string(line.Name), line.Value)
		}
	}
	if len(block) == len(wire.HeaderLine) {
		return nil, true
	}
	return append(block, '\r', '\n'), true
}

func (l *letter) parse(block []byte) (*wire.Headers, bool) {
	h := &wire.Headers{}
	if err := h.Parse(block); err != nil {
		l.unreadable(err)
		return nil, false
	}
	return h, true
}

func (l *letter) unreadable(err error) {
	l.stop(adminapi.VerdictUnsupported, "its headers cannot be read: "+err.Error()+"; publish the event anew, and purge the letter")
}

// headers are the original headers without what was for the server of then and without
// those of an earlier redrive, and with those of this one. nil, with a verdict, if they
// cannot be read.
func (l *letter) headers() nats.Header {
	block, ok := l.without(func(name []byte) bool {
		return wire.HasPrefixFold(name, wire.PrefixNats) || wire.HasPrefixFold(name, wire.PrefixSignet)
	})
	if !ok {
		return nil
	}
	header := l.headersOf(block)
	if header == nil {
		return nil
	}
	header.Set(wire.HeaderRedriveCount, strconv.Itoa(l.out.Count))
	header.Set(wire.HeaderRedriveLetter, strconv.FormatUint(l.Sequence, 10))
	return header
}

// headersOf converts a header block to the form of nats.go, names as they are.
func (l *letter) headersOf(block []byte) nats.Header {
	out, err := store.HeaderOf(block)
	if err != nil {
		l.unreadable(err)
		return nil
	}
	return out
}

// restored is a copy of a stored event with the attributes that readers derive.
func restored(e *cloudevent.Event) *cloudevent.Event {
	c := e.Clone()
	signing.Restore(c)
	return c
}

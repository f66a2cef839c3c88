package attack

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/signetbus/signet/internal/wire"
)

// attributes are the CloudEvents attributes of an event of the attacker's, with more or
// others.
func attributes(more ...string) []string {
	h := []string{"ce-specversion: 1.0", "ce-id: " + token(), "ce-source: /attack/attacker", "ce-type: attack.test"}
	for _, m := range more {
		name, _, _ := strings.Cut(m, ":")
		if i := slices.IndexFunc(h, func(s string) bool { return strings.HasPrefix(s, name+":") }); i >= 0 {
			h[i] = m
		} else {
			h = append(h, m)
		}
	}
	return h
}

func event(subject string, more ...string) ask {
	return ask{subject: subject, header: attributes(more...), body: "x"}
}

const checked = "attack.attacker.checked"

func payload(text string) ask { return ask{subject: checked, body: text} }

// events are attacks by what an event says of itself, and by its payload.
var events = []Attack{
	{
		Number: 34, Name: "spoofed source", Control: "sources are granted", Row: "3",
		Does: "publishes events in the victim's name, and in that of another tenant's principal",
		run: asking(attacker, codes(wire.CodeSourceDenied), stored,
			event("attack.attacker.spoof", "ce-source: /attack/victim"), event("attack.attacker.spoof", "ce-source: /attack-other/stranger")),
	},
	{
		Number: 35, Name: "type that is not granted", Control: "types are granted", Row: "3",
		Does: "publishes events of a type that the principal may not use",
		run:  asking(clerk, codes(wire.CodeTypeDenied), stored, event("attack.clerk.x", "ce-source: /attack/clerk", "ce-type: forged.type")),
	},
	{
		Number: 36, Name: "forged attestation", Control: "broker attributes are the broker's", Row: "3",
		Does: "publishes events with an attestation, a principal and a time of its own making",
		run: asking(attacker, codes(wire.CodeAttestationForbidden), stored,
			event("attack.attacker.attest", "ce-attestation: AAAA"), event("attack.attacker.attest", "ce-authtype: service_account", "ce-authid: attack/victim"),
			event("attack.attacker.attest", "ce-recordedtime: 2020-01-01T00:00:00Z")),
	},
	{Number: 37, Name: "replay", Control: "attested events are published by nobody", Row: "3", Does: "publishes a stored event of the victim again, byte for byte", run: replay(nil, codes(wire.CodeAttestationForbidden, wire.CodeSourceDenied))},
	{
		Number: 38, Name: "stripped attestation", Control: "sources are granted", Row: "3",
		Does: "publishes a stored event of the victim again without what the broker had signed",
		run: replay([]string{"ce-" + wire.AttrAttestation, "ce-authid", "ce-authtype", "ce-recordedtime", "ce-exacttime"},
			codes(wire.CodeSourceDenied, wire.CodeAttestationForbidden)),
	},
	{
		Number: 39, Name: "attribute twice", Control: "one spelling, each once", Row: "3",
		Does: "publishes events with two ids, in two spellings, so that two readers read two",
		run: asking(attacker, codes(wire.CodeHeaderDuplicate, wire.CodeHeaderMalformed), stored,
			ask{subject: "attack.attacker.twice", header: append(attributes(), "ce-id: another"), body: "x"},
			ask{subject: "attack.attacker.twice", header: append(attributes(), "CE-ID: another"), body: "x"}),
	},
	{
		Number: 40, Name: "stripped producer signature", Control: "require: producer", Row: "6/S02",
		Does: "publishes without a signature where the policy demands one",
		run:  asking(attacker, codes(wire.CodeSignatureRequired), stored, ask{subject: "attack.attacker.signed", body: "x"}),
	},
	{
		Number: 41, Name: "forged producer signature", Control: "keys from the keyring only", Row: "6/S08",
		Does: "publishes with a signature of a key that no keyring has",
		run: asking(attacker, codes(wire.CodeSignatureUnsupported, wire.CodeProducerKeyUnknown, wire.CodeProducerSignatureInvalid), stored,
			ask{subject: "attack.attacker.signed", body: "x", header: attributes("ce-time: "+time.Now().UTC().Format(time.RFC3339),
				"ce-recordedtime: "+time.Now().UTC().Format(time.RFC3339), "ce-natssubject: attack.attacker.signed", "ce-dssematerial: "+strings.Repeat("A", 400))}),
	},
	{
		Number: 42, Name: "schema bypass", Control: "schema of the subject", Row: "4",
		Does: "publishes payloads that break the schema: one without a member, one of another type, one that is no JSON",
		run: asking(attacker, codes(wire.CodeSchemaViolation, wire.CodeJSONMalformed, wire.CodeContentTypeMismatch), stored,
			payload(`{}`), payload(`{"id":"x"}`), payload(`{"id":1`)),
	},
	{
		Number: 43, Name: "two JSON documents in one", Control: "no repeated members", Row: "4/24",
		Does: "publishes a payload whose members come twice, of which one is as the schema wants it",
		run:  asking(attacker, codes(wire.CodeJSONMalformed, wire.CodeSchemaViolation), stored, payload(`{"id":1,"id":"x"}`), payload(`{"id":1,"\u0069d":"x"}`)),
	},
	{
		Number: 44, Name: "deep JSON", Control: "32 levels", Row: "4/27",
		Does: "publishes a payload of 2,000 levels",
		run: asking(attacker, codes(wire.CodeJSONMalformed, wire.CodeSchemaViolation), stored,
			payload(`{"id":1,"x":`+strings.Repeat("[", 2000)+strings.Repeat("]", 2000)+`}`)),
	},
	{
		Number: 45, Name: "event with two payloads", Control: "data or data_base64", Row: "4/25",
		Does: "publishes a structured event with both",
		run:  twoPayloads,
	},
	{
		Number: 46, Name: "plain text where it must be encrypted", Control: "encrypted: true", Row: "6",
		Does: "publishes in the clear on a subject of encrypted payloads",
		run:  asking(attacker, codes(wire.CodeEncryptionRequired), stored, ask{subject: "attack.attacker.sealed", body: "x"}),
	},
}

// twoPayloads publishes the event with one of them first, which is granted: so it is the
// second that is refused.
func twoPayloads(ctx context.Context, r *Rig) (Outcome, error) {
	c, err := r.as(ctx, attacker)
	if err != nil {
		return Outcome{}, err
	}
	defer c.Close()
	header := []string{"content-type: application/cloudevents+json"}
	one := `{"specversion":"1.0","id":"` + token() + `","source":"/attack/attacker","type":"attack.test","data":{"id":1}`
	if _, err := granted(ctx, c, "attack.attacker.one", header, one+"}"); err != nil {
		return Outcome{}, err
	}
	return askAll(ctx, c, codes(wire.CodeEventMalformed, wire.CodeJSONMalformed, wire.CodeHeaderDuplicate), stored,
		ask{subject: "attack.attacker.both", header: header, body: one + `,"data_base64":"eyJpZCI6Mn0="}`})
}

// replay publishes an event of the victim again, without some of its headers.
func replay(without []string, want []wire.Code) runner {
	return func(ctx context.Context, r *Rig) (Outcome, error) {
		c, err := r.as(ctx, attacker)
		if err != nil {
			return Outcome{}, err
		}
		defer c.Close()
		sid, err := c.subscribe("attack.shared.replay")
		if err != nil {
			return Outcome{}, err
		}
		if errs, err := c.sync(ctx); err != nil || len(errs) > 0 {
			return Outcome{}, fmt.Errorf("%w: %w", errorTold(errs), err)
		}
		id := token()
		if _, err := r.by(ctx, victim, "attack.shared.replay", attributes("ce-id: "+id, "ce-source: /attack/victim"), "the victim's"); err != nil {
			return Outcome{}, err
		}
		f, ok, err := c.next(ctx, 10*time.Second, sid, func(f *frame) bool { return strings.Contains(f.header, id) })
		if err != nil || !ok {
			return Outcome{}, fmt.Errorf("the event to be replayed did not come: %w", err)
		}
		return askAll(ctx, c, want, stored, ask{subject: f.subject, header: kept(f.header, without), body: f.body})
	}
}

// kept are the headers of a block, but those named and the key of the dedup, which would
// make a duplicate of it.
func kept(block string, without []string) []string {
	var out []string
	for line := range strings.SplitSeq(strings.TrimPrefix(strings.TrimSpace(block), wire.HeaderLine), "\r\n") {
		name, _, _ := strings.Cut(line, ":")
		if name != wire.HeaderMsgID && !slices.Contains(without, name) {
			out = append(out, line)
		}
	}
	return out
}

package wire

import "encoding/base64"

// Names of headers on the NATS side. Header names are compared byte for byte;
// the parser refuses other spellings of ce- and Signet- names.
const (
	HeaderLine        = "NATS/1.0\r\n"
	HeaderMsgID       = "Nats-Msg-Id"
	HeaderContentType = "content-type"     // CloudEvents NATS binding: datacontenttype travels as ce-datacontenttype; content-type selects structured mode
	HeaderPrincipal   = "Signet-Principal" // tenant/name of the caller, set by the gate on rpc and admin requests
	HeaderAck         = "Signet-Ack"       // with the value AckSigned a client asks for a signed acknowledgement (docs/spec/receipt.md)
	AckSigned         = "signed"
	MemberReceipt     = "receipt" // of a publish acknowledgement: the signed one
	PrefixAttribute   = "ce-"
	PrefixSignet      = "Signet-" // reserved: clients may not send it, but for HeaderAck
	PrefixNats        = "Nats-"

	// StructuredContentType marks structured mode (CloudEvents 1.0 NATS binding).
	StructuredContentType = "application/cloudevents+json"
)

// Names of CloudEvents extension attributes that the broker sets or signs.
const (
	AttrAttestation  = "attestation"
	AttrAuthType     = "authtype"
	AttrAuthID       = "authid"
	AttrNATSSubject  = "natssubject" // signed, never on the wire: the reader takes the subject the event came on
	AttrRecordedTime = "recordedtime"
	AttrDSSE         = "dssematerial"        // of the producer; off the bus, of an event without a producer signature, the expanded attestation
	AttrExpanded     = "attestationmaterial" // off the bus: the expanded attestation of an event that has a producer signature
	AttrExpiryTime   = "expirytime"
	AttrPartitionKey = "partitionkey"
	AttrSequence     = "sequence"
	// AttrEncryptionKey is the id of the key that the data is encrypted with.
	AttrEncryptionKey = "enckeyid"
)

// EncryptedContentType is the datacontenttype of an encrypted payload
// (docs/spec/encryption.md).
const EncryptedContentType = "application/vnd.signet.encrypted"

// AtNode returns the subject on which the gate of a node sends an admin request on to
// the admin service of that node: the name of a node may hold dots.
func AtNode(subject, node string) string {
	return subject + "." + base64.RawURLEncoding.EncodeToString([]byte(node))
}

// Subject prefixes with a meaning of their own.
const (
	PrefixInbox   = "_INBOX."
	PrefixJSAPI   = "$JS.API."
	PrefixJSAck   = "$JS.ACK."
	PrefixJSFC    = "$JS.FC."
	PrefixKV      = "$KV."
	PrefixObject  = "$O."
	PrefixService = "$SRV."
	PrefixRPC     = "rpc."
	PrefixAdmin   = "$SIGNET.API."
	PrefixDLQ     = "$SIGNET.DLQ."
	PrefixRouted  = "_R_."
	StreamDLQ     = "DLQ"
	SystemAccount = "SYS"          // nats-server's system account
	StreamHeads   = "HEADS"        // in BrokerAccount: heads of the audit trail; its log is that of the heads
	PrefixHeads   = "heads."       // heads.<tenant>.<node>, in BrokerAccount
	BrokerAccount = "SIGNET"       // the broker's own account, which no client can enter; tenants have lower-case names
	MetaOwner     = "signet.owner" // consumer metadata: the owning principal, written by the read guard
	// MetaDeliveries is consumer metadata: the most deliveries that its client asked for; the
	// gate counts them, not the server.
	MetaDeliveries  = "signet.max-deliver"
	DefaultAuthType = "service_account" // CloudEvents authcontext extension vocabulary
	// DefaultContentType is the datacontenttype of data that nobody described (RFC 9110 section 8.3).
	DefaultContentType = "application/octet-stream"
)

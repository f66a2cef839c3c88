package attack

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/url"

	"github.com/signetbus/signet/internal/wire"
)

const (
	adminAPI = wire.PrefixAdmin
	madeUp   = "ATTACK_MADE_UP" // a stream that nobody has
)

// administration are attacks on what only administrators may do.
var administration = []Attack{
	{
		Number: 73, Name: "admin requests", Control: "admin grants", Row: "5",
		Does: "asks for status, policy, dead letters, refusals, keys and nodes: it only reads",
		run: asking(attacker, codes(wire.CodeAdminDenied), answered,
			ask{subject: adminAPI + "status.get"}, ask{subject: adminAPI + "policy.show"}, ask{subject: adminAPI + "dlq.ls"}, ask{subject: adminAPI + "refusals.ls"},
			ask{subject: adminAPI + "keys.ls"}, ask{subject: adminAPI + "cluster.status"}),
	},
	{
		Number: 74, Name: "forged policy", Control: "signed versions, admin grants", Row: "5",
		Does: "brings an empty document as a version of the policy: who may bring one is told that it is none, so nothing changes",
		run:  bringing("policy.put"),
	},
	{
		Number: 75, Name: "forged keyring", Control: "signed by the root, admin grants", Row: "6",
		Does: "brings an empty document as a keyring: who may bring one is told that it is none, so nothing changes",
		run:  bringing("keys.put"),
	},
	{
		Number: 76, Name: "listening to the admin API", Control: "$SIGNET.> is the admin API's alone", Row: "5",
		Does: "subscribes to the requests of administrators",
		run: listening(codes(wire.CodeSubscribeDenied), []string{"$SIGNET.API.>", "$SIGNET.>", "$SIGNET.API.*.* q"},
			func(ctx context.Context, r *Rig, marker string) error {
				c, err := r.as(ctx, victim)
				if err != nil {
					return err
				}
				defer c.Close()
				_, err = c.request(ctx, adminAPI+"keys.ring", []string{"x: " + marker}, "") // everybody may
				return err
			}),
	},
	{Number: 77, Name: "certificate issued for another's name", Control: "own names only", Row: "2", Does: "asks the broker to issue a certificate for the victim's name", run: certifyAsVictim},
	{
		Number: 78, Name: "delete and purge", Control: "streams deny both; admin grants", Row: "5",
		Does: "purges an own throw-away subject, and deletes the first event of the throw-away stream",
		run: asking(attacker, codes(wire.CodeAdminDenied, wire.CodeFilterDenied, wire.CodeAPIDenied), answered,
			ask{subject: api + "STREAM.PURGE." + stream, body: `{"filter":"attack.attacker.purged"}`}, ask{subject: api + "STREAM.MSG.DELETE." + stream, body: `{"seq":1}`}),
	},
	{
		Number: 79, Name: "streams by hand", Control: "streams come from the policy", Row: "5",
		Does: "deletes and changes a stream that nobody has, and takes a snapshot of it: where the server itself looks for it, it would do so with any other",
		run: asking(attacker, codes(wire.CodeAPIDenied, wire.CodeAdminDenied, wire.CodeRequestMalformed), reached,
			ask{subject: api + "STREAM.DELETE." + madeUp}, ask{subject: api + "STREAM.UPDATE." + madeUp, body: `{"name":"` + madeUp + `","subjects":["attackmadeup.>"]}`},
			ask{subject: api + "STREAM.SNAPSHOT." + madeUp, body: `{"deliver_subject":"_INBOX.x.y"}`}),
	},
	{
		Number: 80, Name: "listing the streams", Control: "admin grants", Row: "5",
		Does: "asks for the names of all streams of the tenant",
		run:  asking(attacker, codes(wire.CodeAdminDenied, wire.CodeFilterDenied), answered, ask{subject: api + "STREAM.NAMES"}, ask{subject: api + "STREAM.LIST"}),
	},
	{
		Number: 81, Name: "forged advisory", Control: "nobody publishes on $JS.EVENT", Row: "5/19",
		Does: "says in the server's name that an event of a consumer that nobody has was delivered too often",
		run: asking(attacker, codes(wire.CodeSubjectUnknown, wire.CodePublishDenied, wire.CodeAPIDenied), answered, ask{
			subject: "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES." + madeUp + ".none",
			body:    `{"type":"io.nats.jetstream.advisory.v1.max_deliver","stream":"` + madeUp + `","consumer":"none","stream_seq":1,"deliveries":5}`,
		}),
	},
}

// bringing brings an empty document. Being told that it is none is a success of the attacker: he got
// past the grants.
func bringing(verb string) runner {
	return func(ctx context.Context, r *Rig) (Outcome, error) {
		c, err := r.as(ctx, attacker)
		if err != nil {
			return Outcome{}, err
		}
		defer c.Close()
		a, err := c.request(ctx, adminAPI+verb, nil, `{"document":""}`)
		if err != nil {
			return Outcome{}, err
		}
		return judgeBrought(a)
	}
}

func judgeBrought(a *answer) (Outcome, error) {
	if class := wire.Code(a.code).Entry().Class; class == wire.ClassMalformed || class == wire.ClassConflict || class == wire.ClassBadSignature || class == wire.ClassTooLarge {
		return succeeded("the document was looked at: %d %s", a.code, a.reason)
	}
	return judgeAnswer(a, codes(wire.CodeAdminDenied), answered)
}

func certifyAsVictim(ctx context.Context, r *Rig) (Outcome, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Outcome{}, err
	}
	name, err := url.Parse("spiffe://attack/victim")
	if err != nil {
		return Outcome{}, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{URIs: []*url.URL{name}}, key)
	if err != nil {
		return Outcome{}, err
	}
	body, err := json.Marshal(map[string]string{"request": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))})
	if err != nil {
		return Outcome{}, err
	}
	c, err := r.as(ctx, attacker)
	if err != nil {
		return Outcome{}, err
	}
	defer c.Close()
	a, err := c.request(ctx, adminAPI+"keys.certify", nil, string(body))
	if err != nil {
		return Outcome{}, err
	}
	if a.code == int(wire.CodeUnavailable) {
		return notApplicable("the node that was asked issues no certificates: it has no authentication.enrolment")
	}
	return judgeAnswer(a, codes(wire.CodeNameDenied), answered)
}

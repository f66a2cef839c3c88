package doctor_test

import (
	"os"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/internal/doctor"
	"github.com/signetbus/signet/signing/keyring"
)

// TestRecipientsOfEncryptedSubjects: where the policy wants encryption and nobody can be
// encrypted to, producers stand still; that is said before.
func TestRecipientsOfEncryptedSubjects(t *testing.T) {
	const day = 24 * time.Hour
	now := time.Now()
	for _, c := range []struct {
		name      string
		principal string
		subject   string
		ends      time.Duration
		revoked   bool
		want      doctor.Severity
	}{
		{"nobody", "", "", 0, false, doctor.Critical},
		{"somebody", "main/reader", "events.care.>", 365 * day, false, doctor.OK},
		{"somebody for all", "main/reader", ">", 365 * day, false, doctor.OK},
		{"somebody for one of the subjects", "main/reader", "events.care.7", 365 * day, false, doctor.OK},
		{"ends soon", "main/reader", ">", 20 * day, false, doctor.Warning},
		{"ends very soon", "main/reader", ">", 5 * day, false, doctor.Critical},
		{"revoked", "main/reader", ">", 365 * day, true, doctor.Critical},
		{"of other subjects", "main/reader", "events.other.>", 365 * day, false, doctor.Critical},
		{"of another tenant", "mill/reader", ">", 365 * day, false, doctor.Critical},
	} {
		t.Run(c.name, func(t *testing.T) {
			st, err := broker.Setup{Dir: t.TempDir(), Name: "n1", Hosts: []string{"bus.example.org"}, Listen: "127.0.0.1:0", Policy: `tenant: main
streams: [{name: EVENTS, subjects: [events.>], maxBytes: 1MiB}]
subjects: [{match: events.care.>, encrypted: true}]
`}.Run()
			must(t, err)
			if c.principal != "" {
				k := keyring.Key{
					ID: curveKey(t), Alg: keyring.AlgX25519, Role: keyring.RoleRecipient, Principal: c.principal, Subjects: []string{c.subject},
					NotBefore: now.Add(-time.Hour), NotAfter: now.Add(c.ends),
				}
				if c.revoked {
					k.RevokedAt = now.Add(-time.Minute)
				}
				addKey(t, st, k)
			}
			list, _ := doctor.Offline(t.Context(), st.Config, nil, now, doctor.DefaultThresholds())
			want(t, list, "KEYS_006", c.want)
		})
	}
	st := newFolder(t)
	list, _ := doctor.Offline(t.Context(), st.Config, nil, now, doctor.DefaultThresholds())
	if f, found := worst(list, "KEYS_006"); found {
		t.Errorf("without an encrypted subject: %+v", f)
	}
}

func curveKey(t *testing.T) string {
	t.Helper()
	pair, err := nkeys.CreateCurveKeys()
	must(t, err)
	id, err := pair.PublicKey()
	must(t, err)
	return id
}

func addKey(t *testing.T, st *broker.State, k keyring.Key) {
	t.Helper()
	root, err := os.ReadFile(st.RootSeed)
	must(t, err)
	doc, err := os.ReadFile(st.Keyring)
	must(t, err)
	ring, err := keyring.Parse(doc, st.Root, time.Now())
	must(t, err)
	change := ring.Change(time.Now())
	must(t, change.Issue(k))
	next, err := change.Ring(time.Now().Add(24 * 365 * time.Hour))
	must(t, err)
	doc, err = next.Sign(root)
	must(t, err)
	must(t, os.WriteFile(st.Keyring, doc, 0o600))
}

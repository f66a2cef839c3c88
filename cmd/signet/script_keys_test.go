package main

import (
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nkeys"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/signetbus/signet/signing/keyring"
)

// cmdEventKeys is `eventkeys KEYS FILE[=PRINCIPAL]...`: it makes event keys, writes the
// seed of each to its FILE and enters those with a principal into the keyring in the
// folder KEYS, whose version it leaves in $RING.
func cmdEventKeys(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: eventkeys KEYS FILE[=PRINCIPAL]...")
	}
	file := ts.MkAbs(args[0] + "/keyring.json")
	ring, err := keyring.Parse([]byte(ts.ReadFile(file)), strings.TrimSpace(ts.ReadFile(ts.MkAbs(args[0]+"/root.pub"))), time.Now())
	ts.Check(err)
	keys := ring.Keys()
	for _, arg := range args[1:] {
		pair, err := nkeys.CreateUser()
		ts.Check(err)
		seed, err := pair.Seed()
		ts.Check(err)
		seedFile, principal, enter := strings.Cut(arg, "=")
		ts.Check(os.WriteFile(ts.MkAbs(seedFile), seed, 0o600))
		if !enter {
			continue
		}
		id, err := pair.PublicKey()
		ts.Check(err)
		keys = append(keys, keyring.Key{
			ID: id, Alg: keyring.AlgEd25519, Role: keyring.RoleProducer, Principal: principal,
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		})
	}
	next, err := keyring.New(ring.Version()+1, ring.Issued(), ring.Expires(), keys)
	ts.Check(err)
	doc, err := next.Sign([]byte(strings.TrimSpace(ts.ReadFile(ts.MkAbs(args[0] + "/root.seed")))))
	ts.Check(err)
	ts.Check(os.WriteFile(file+".next", doc, 0o600))
	ts.Check(os.Rename(file+".next", file)) // in one step: the broker watches it
	ts.Setenv("RING", strconv.FormatUint(next.Version(), 10))
}

package main

import (
	"bytes"
	_ "embed"
	"slices"
	"text/template"

	"github.com/signetbus/signet/examples/githubwebhooks"
)

//go:embed policy.yaml.tmpl
var policyText string

// kind is one kind of GitHub event and where the schema defines it.
type kind struct{ Event, Ref string }

// kinds lists the kinds that occur in the deliveries, sorted.
func kinds() []kind {
	var out []kind
	seen := map[string]bool{}
	for d := range githubwebhooks.Deliveries() {
		if !seen[d.Event] {
			seen[d.Event] = true
			out = append(out, kind{d.Event, githubwebhooks.Definition(d.Event)})
		}
	}
	slices.SortFunc(out, func(a, b kind) int { return bytes.Compare([]byte(a.Event), []byte(b.Event)) })
	return out
}

// subject is github.<event>.<action>, or github.<event> where there is no action.
func subject(d githubwebhooks.Delivery) string {
	s := "github." + d.Event
	if d.Action != "" {
		s += "." + d.Action
	}
	return s
}

// policy writes the policy of the demo; nkeys maps principals to public keys.
func policy(nkeys map[string]string) ([]byte, error) {
	t, err := template.New("policy").Parse(policyText)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = t.Execute(&b, map[string]any{"Nkeys": nkeys, "Kinds": kinds()})
	return b.Bytes(), err
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/signetbus/signet/broker/acl"
	"github.com/signetbus/signet/broker/admission"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/schema"
	"github.com/signetbus/signet/schema/jsonschema"
)

func policyCommand(a *app) *cobra.Command {
	return parent("policy", "check, plan and apply a policy, ask what it allows", "  signet policy check policy.yaml\n  signet policy can-i publish orders.created --as checkout",
		policyAddCommand(a), policyCheckCommand(a), policyCanICommand(a), policyPlanCommand(a), policyApplyCommand(a), policyDiffCommand(a), policyHistoryCommand(a),
		policyReleaseCommand(a), policyRollbackCommand(a), policyShowCommand(a), policyUnusedCommand(a))
}

func policyCheckCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "check FILE...", Short: "check policy files, with no broker; print all faults", Args: cobra.ArbitraryArgs,
		Long:    "Checks policy files (or folders of them) together, as the broker would: keys, names,\nsubjects, references and every JSON Schema. All faults are printed with file, line\nand column; exit code 2 if there is one.",
		Example: "  signet policy check policy.yaml\n  signet policy check policy.d/ -o json",
		RunE: a.verb(func(ctx context.Context, args []string) error {
			if len(args) == 0 {
				return &usageError{msg: "FILE is missing"}
			}
			set, err := loadPolicy(ctx, args)
			if err == nil {
				return printPolicy(a, args, set)
			}
			if list := policyFaults(err); len(list) > 0 {
				return printFaults(a, list)
			}
			return &exitError{code: exitUsage, err: err}
		}),
	}
}

// loadPolicy reads and compiles a policy with its schemas.
func loadPolicy(ctx context.Context, paths []string) (*policy.Set, error) {
	set, _, err := loadPolicySchemas(ctx, paths)
	return set, err
}

// loadPolicySchemas is loadPolicy that also returns the compiled schemas.
func loadPolicySchemas(ctx context.Context, paths []string) (*policy.Set, map[*policy.SchemaDoc]schema.Validator, error) {
	bundle, err := policy.Load(paths)
	if err != nil {
		return nil, nil, err
	}
	set, err := policy.Compile(bundle)
	if err != nil {
		return nil, nil, err
	}
	validators := map[*policy.SchemaDoc]schema.Validator{}
	engine := jsonschema.New(schema.DefaultLimits())
	var faults []error
	for _, t := range set.Tenants() {
		for i := range t.Schemas {
			d := &t.Schemas[i]
			v, err := engine.Compile(ctx, schema.Document{Name: d.Name, Version: d.Version, Format: d.Format, Text: d.Text, Ref: d.Ref})
			if err != nil {
				faults = append(faults, &policy.Fault{At: d.At, Msg: fmt.Sprintf("schema %s: %s", d.Name, oneLine(err))})
			}
			validators[d] = v
		}
	}
	return set, validators, errors.Join(faults...)
}

// oneLine joins the lines of the schema engine's error.
func oneLine(err error) string {
	lines := strings.Split(err.Error(), "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return strings.Join(lines, " ")
}

func policyFaults(err error) []admin.PolicyFault {
	var out []admin.PolicyFault
	for _, f := range policy.Faults(err) {
		out = append(out, admin.PolicyFault{File: f.At.File, Line: f.At.Line, Column: f.At.Column, Message: f.Msg})
	}
	return out
}

func printPolicy(a *app, files []string, set *policy.Set) error {
	result := admin.PolicyCheck{OK: true, Digest: set.Digest(), Tenants: len(set.Tenants())}
	for _, t := range set.Tenants() {
		result.Principals += len(t.Principals())
	}
	if a.jsonOut() {
		return a.printJSON(result)
	}
	fmt.Fprintf(a.stdout, "%s: ok\n", clean(strings.Join(files, " ")))
	facts(a.stdout, "  ", "version", set.Digest())
	for _, t := range set.Tenants() {
		fmt.Fprintf(a.stdout, "  tenant %s: %s, %s, %s, %s, %s\n", t.Name, plural(len(t.Principals()), "principal"), plural(len(t.Streams), "stream"),
			plural(len(t.KV)+len(t.Objects), "bucket"), plural(len(t.Schemas), "schema"), plural(len(t.Bindings), "subject rule"))
	}
	return nil
}

func printFaults(a *app, list []admin.PolicyFault) error {
	if a.jsonOut() {
		if err := a.printJSON(admin.PolicyCheck{Faults: list}); err != nil {
			return err
		}
		return &exitError{code: exitUsage}
	}
	for _, f := range list {
		at := policy.Position{File: f.File, Line: f.Line, Column: f.Column}
		fmt.Fprintf(a.stderr, "%s: %s\n", clean(at.String()), clean(f.Message))
	}
	return &exitError{code: exitUsage, err: errors.New(plural(len(list), "fault"))}
}

func policyCanICommand(a *app) *cobra.Command {
	var as, event string
	var files []string
	cmd := &cobra.Command{
		Use: "can-i VERB [SUBJECT] [--as PRINCIPAL] [--event FILE]", Short: "ask whether a principal may do something, and why",
		Args: cobra.RangeArgs(1, 2), DisableFlagsInUseLine: true,
		Long: `Answers with the rule that decides, where it stands, and if the answer is no the
nearest grant and the fix. Exit code 0 for yes, 3 for no.

The broker of the context is asked (grant: admin policy); with --policy the files
are, with no broker. --event asks about one event, too: its source, type, size and
schema, and whether it must be signed. Verbs: ` + strings.Join(acl.Verbs[:5], ", ") + `,
` + strings.Join(acl.Verbs[5:], ", ") + `.`,
		Example: `  signet policy can-i publish orders.created --as app --context dev-operator
  signet policy can-i subscribe 'orders.>' --as billing --policy policy.yaml
  signet policy can-i publish orders.created --as app --event order.json
  signet policy can-i admin dlq --as operator --policy policy.yaml`,
		ValidArgs: acl.Verbs,
		RunE: a.verb(func(ctx context.Context, args []string) error {
			q := admin.CanIRequest{Verb: args[0], Principal: as}
			if len(args) == 2 {
				q.Subject = args[1]
			}
			if !slices.Contains(acl.Verbs, q.Verb) {
				return &usageError{msg: fmt.Sprintf("no verb %q: %s", q.Verb, strings.Join(acl.Verbs, ", "))}
			}
			if q.Subject == "" && q.Verb != policy.VerbDiscover && q.Verb != "connect" {
				return &usageError{msg: fmt.Sprintf("%s what? SUBJECT is missing", q.Verb)}
			}
			if event != "" {
				var err error
				if q.Event, err = readEvent(a, event, q.Verb); err != nil {
					return err
				}
			}
			return answerCanI(ctx, a, q, files)
		}),
	}
	cmd.Flags().StringVar(&as, "as", "", "principal to ask for: NAME, or TENANT/NAME with --policy (default: the context's own)")
	cmd.Flags().StringVar(&event, "event", "", "with publish: a CloudEvent in JSON, or the bare payload (- for stdin)")
	cmd.Flags().StringSliceVar(&files, "policy", nil, "ask these files instead of the broker")
	return cmd
}

func answerCanI(ctx context.Context, a *app, q admin.CanIRequest, files []string) error {
	var answer *admin.CanI
	var err error
	if len(files) > 0 {
		answer, err = canILocal(ctx, a, q, files)
	} else {
		err = a.admin(ctx, func(ctx context.Context, api *admin.API) (err error) {
			answer, err = api.CanI(ctx, q)
			return err
		})
	}
	if err != nil {
		return err
	}
	if a.jsonOut() {
		err = a.printJSON(answer)
	} else {
		fmt.Fprintln(a.stdout, strings.ReplaceAll(indentLines(answer.Text), "\n    ", "\n  "))
		for _, v := range answer.Violations {
			facts(a.stdout, "  ", "violation", violationText(v))
		}
	}
	if err == nil && !answer.Allowed {
		return &exitError{code: exitRefused}
	}
	return err
}

func canILocal(ctx context.Context, a *app, q admin.CanIRequest, files []string) (*admin.CanI, error) {
	set, validators, err := loadPolicySchemas(ctx, files)
	if err != nil {
		if list := policyFaults(err); len(list) > 0 {
			return nil, printFaults(a, list)
		}
		return nil, &exitError{code: exitUsage, err: err}
	}
	p, err := findPrincipal(set, q.Principal)
	if err != nil {
		return nil, err
	}
	e, violations := acl.Explanation{}, []wire.Violation(nil)
	if len(q.Event) == 0 {
		e = acl.Explain(p, q.Verb, q.Subject)
	} else {
		j := admission.NewJudge(func(d *policy.SchemaDoc) schema.Validator { return validators[d] }, 0)
		e, violations = j.CanPublish(p, q.Subject, q.Event, time.Now())
	}
	return &admin.CanI{
		Violations: violations,
		Allowed:    e.Allowed, Principal: e.Principal, Verb: e.Verb, Subject: e.Subject, Rule: e.Rule,
		File: e.At.File, Line: e.At.Line, Nearest: e.Nearest, Fix: e.Fix, Limits: e.Limits, Text: e.String(),
	}, nil
}

// readEvent reads the file of --event.
func readEvent(a *app, file, verb string) ([]byte, error) {
	if verb != policy.VerbPublish {
		return nil, &usageError{msg: "--event is for the verb publish"}
	}
	in := a.stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, &usageError{msg: err.Error()}
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, admin.MaxBundleBytes+1))
	switch {
	case err != nil:
		return nil, err
	case len(data) == 0 || len(data) > admin.MaxBundleBytes:
		return nil, &usageError{msg: fmt.Sprintf("--event %s: %d bytes, 1 to %d are wanted", file, len(data), admin.MaxBundleBytes)}
	}
	return data, nil
}

// findPrincipal takes tenant/name, or a name that one tenant has.
func findPrincipal(set *policy.Set, name string) (*policy.Principal, error) {
	if name == "" {
		return nil, &usageError{msg: "--as PRINCIPAL is needed with --policy"}
	}
	if p := set.PrincipalByFullName(name); p != nil {
		return p, nil
	}
	var found []*policy.Principal
	var all []string
	for _, t := range set.Tenants() {
		for _, p := range t.Principals() {
			all = append(all, p.FullName())
			if p.Name == name {
				found = append(found, p)
			}
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return nil, &usageError{msg: fmt.Sprintf("the policy has no principal %q", name), fix: "there are: " + strings.Join(all, ", ")}
	}
	return nil, &usageError{msg: fmt.Sprintf("more than one tenant has a principal %q: say TENANT/%s", name, name)}
}

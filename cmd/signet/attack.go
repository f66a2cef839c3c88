package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/internal/attack"
	"github.com/signetbus/signet/internal/durablefile"
	"github.com/signetbus/signet/signing"
)

// attackLimit bounds a run. The throw-away principals lapse a few minutes after it.
const attackLimit = 10 * time.Minute

// assault is what signet attack is asked to do.
type assault struct {
	against, key, report, plain string
	policy                      []string
	only                        []int
	list, restore               bool
}

func attackCommand(a *app) *cobra.Command {
	var x assault
	cmd := &cobra.Command{
		Use: "attack --against CONTEXT --key SEED [flags]", Short: "attack a broker: all is refused",
		Args: cobra.NoArgs, DisableFlagsInUseLine: true,
		Long: `Attacks a running broker with everything that docs/threat-model.md has a number for,
and says of each attack by what it was refused. For that it applies the policy in force
together with two throw-away tenants, "attack" and "attack-other", and puts it back as it
was at the end, also after Ctrl-C; should it be killed, the throw-away principals lapse
after 15 minutes, and --restore puts the policy back. The attacks reach nothing but the
throw-away tenants, where they succeed as well. Their streams stay, empty, 2 MiB in all.

The principal of the context needs the grants admin policy and cluster, and a key of the
role policy (signet keys issue --role policy). Where the policy in force comes from the
files of the nodes, --policy names these files, as they are there.

An attack that could not be carried out, or that something else stopped, is not judged:
that is no pass. Exit codes: 0 all were refused, 3 one succeeded, 1 one was not judged.`,
		Example: `  signet attack --list
  signet attack --against dev-operator --key policy.seed --policy .signet/policy.yaml
  signet attack --against prod --key policy.seed --report attack-report.json
  signet verify --attack-report attack-report.json --keyring keyring.json --root OBQ7...
  signet attack --plain nats://127.0.0.1:4222`,
		RunE: a.verb(func(ctx context.Context, _ []string) error { return x.run(ctx, a) }),
	}
	f := cmd.Flags()
	f.StringVar(&x.against, "against", "", "context of the broker, as --context")
	f.StringVar(&x.key, "key", "", "file with the seed of a key of the role policy (SA...), mode 0600")
	f.StringSliceVar(&x.policy, "policy", nil, "policy files of the nodes, where they are in force")
	f.IntSliceVar(&x.only, "only", nil, "only these attacks, such as 8,28")
	f.BoolVar(&x.list, "list", false, "list the attacks, and attack nothing")
	f.StringVar(&x.report, "report", "", "write a signed report to this new file")
	f.BoolVar(&x.restore, "restore", false, "only put back the policy that a run has left that was killed")
	f.StringVar(&x.plain, "plain", "", "attack a plain nats-server that has nothing of anybody's (nats://host:port), to see that the attacks work")
	_ = cmd.RegisterFlagCompletionFunc("against", completeContexts) // fails only for an unknown flag
	return cmd
}

func (x *assault) run(ctx context.Context, a *app) error {
	attacks, err := attack.Pick(x.only)
	if err != nil {
		return &usageError{msg: "--only: " + err.Error(), fix: "signet attack --list"}
	}
	switch {
	case x.list:
		return listAttacks(a, attacks)
	case x.plain != "" && (x.against != "" || x.key != "" || x.report != "" || x.restore):
		return &usageError{msg: "--plain stands alone, or with --only"}
	case x.plain != "":
		return x.runPlain(ctx, a, attacks)
	case x.against != "" && a.contextName != "" && x.against != a.contextName:
		return &usageError{msg: "--against and --context name two contexts"}
	case x.against == "" && a.contextName == "":
		// A selected context is for everyday work, and this is none.
		return &usageError{msg: "--against is missing: which broker?", fix: "signet context ls"}
	case x.key == "":
		return &usageError{
			msg: "--key is missing: the throw-away principals take a key of the role policy",
			fix: "signet keys issue --role policy --principal TENANT/NAME --out policy.seed --keyring keyring.json --root-seed root.seed; then signet keys push",
		}
	case x.against != "":
		a.contextName = x.against
	}
	err = x.runLive(ctx, a, attacks)
	if err != nil && exitCode(err) == exitRefused && !errors.Is(err, errAttackSucceeded) {
		err = &exitError{code: exitFailed, err: fmt.Errorf("nothing was attacked: %w", err)} // 3 is for an attack that succeeds
	}
	return err
}

func listAttacks(a *app, attacks []attack.Attack) error {
	if a.jsonOut() {
		return a.printJSON(attacks)
	}
	g := newGrid(a.stdout, "NO", "ATTACK", "CONTROL", "ROW", "HOW")
	for i := range attacks {
		t := &attacks[i]
		g.row(strconv.Itoa(t.Number), t.Name, t.Control, t.Row, t.Does)
	}
	g.flush()
	return nil
}

var errAttackSucceeded = errors.New("an attack succeeded")

// runLive attacks the broker of the context.
func (x *assault) runLive(ctx context.Context, a *app, attacks []attack.Attack) (err error) {
	saved, err := a.loadContext()
	if err != nil {
		return err
	}
	signer, err := policySigner(x.key)
	if err != nil {
		return err
	}
	if x.report != "" {
		if _, err := os.Stat(x.report); err == nil {
			return &usageError{msg: "--report: " + x.report + " exists"}
		}
	}
	conf, err := contextTLS(saved)
	if err != nil {
		return err
	}
	return a.admin(ctx, func(ctx context.Context, api *admin.API) error {
		ring, err := api.KeyRing(ctx)
		if err != nil {
			return err
		}
		stage := attack.NewStage(admin.PolicyOf(api), signer, ring.Caller)
		if x.restore {
			return restoreStage(ctx, a, stage)
		}
		report, err := x.onStage(ctx, a, stage, func(ctx context.Context) (*attack.Rig, error) { return stage.Open(ctx, saved.URL, conf) }, attacks)
		if err != nil {
			return err
		}
		report.By, report.Policy, report.Stage, report.Broker = ring.Caller, stage.Before, stage.During, stage.Broker
		if err := x.write(report, signer); err != nil {
			return err
		}
		return printAttacks(a, report)
	})
}

func restoreStage(ctx context.Context, a *app, stage *attack.Stage) error {
	ctx, cancel := context.WithTimeout(ctx, applyLimit)
	defer cancel()
	left, err := stage.Restore(ctx)
	if err == nil && left == "" {
		a.note("no run has left anything: the policy is as it is")
	} else if err == nil {
		a.note("the policy before %s is in force again", left)
	}
	return err
}

// onStage sets the stage up, attacks, and takes it down again whatever has happened.
func (x *assault) onStage(ctx context.Context, a *app, stage *attack.Stage, open func(context.Context) (*attack.Rig, error), attacks []attack.Attack) (report *attack.Report, err error) {
	files, err := x.policyFiles(a)
	if err != nil {
		return nil, err
	}
	defer func() {
		down, cancel := context.WithTimeout(context.WithoutCancel(ctx), applyLimit)
		defer cancel()
		if terr := stage.TearDown(down); terr != nil {
			a.note("THE POLICY IS NOT AS IT WAS: %v", terr)
			a.note("put it back: signet attack --restore --against %s --key %s", a.contextName, x.key)
			err = errors.Join(err, &exitError{code: exitFailed, err: terr})
		}
	}()
	up, cancel := context.WithTimeout(ctx, applyLimit)
	err = stage.SetUp(up, files, attackLimit)
	cancel()
	if stage.Left != "" {
		a.note("an earlier run was killed: %s is taken away with this one", stage.Left)
	}
	if err != nil {
		return nil, explainStage(a, err)
	}
	a.note("%s against %s; the policy is %.12s and will be %.12s again", plural(len(attacks), "attack"), a.contextName, stage.During, stage.Before)
	ctx, cancel = context.WithTimeout(ctx, attackLimit)
	defer cancel()
	rig, err := open(ctx)
	if rig != nil {
		defer rig.Close()
	}
	if err != nil {
		return nil, &exitError{code: exitFailed, err: err}
	}
	return carryOutAttacks(ctx, rig, attacks), nil
}

func carryOutAttacks(ctx context.Context, rig *attack.Rig, attacks []attack.Attack) *attack.Report {
	v, _ := buildVersion()
	report := &attack.Report{Signet: v, Begun: time.Now()}
	results := attack.Run(ctx, rig, attacks, nil)
	report.Node = rig.Server()
	report.Finish(results)
	return report
}

func (x *assault) policyFiles(a *app) ([]policy.File, error) {
	if len(x.policy) == 0 {
		return nil, nil
	}
	_, files, err := policy.LoadFiles(x.policy)
	if list := policyFaults(err); len(list) > 0 {
		return nil, printFaults(a, list)
	}
	if err != nil {
		return nil, &exitError{code: exitUsage, err: err}
	}
	return files, nil
}

// explainStage says what to do where the throw-away principals cannot be made.
func explainStage(a *app, err error) error {
	msg := plain(err.Error())
	var e *client.Error
	switch {
	case errors.Is(err, attack.ErrFilesUnknown):
		return &usageError{msg: msg, fix: "--policy FILE, with the policy files as they are on the nodes; or move over to the store: signet policy apply FILE --key SEED"}
	case errors.Is(err, attack.ErrTenantTaken):
		return &usageError{msg: msg, fix: "attack another broker, with the same version and configuration"}
	case errors.As(err, &e) && errors.Is(err, client.ErrDenied):
		a.note("the principal of the context %s cannot make throw-away principals: it needs admin: [policy, cluster], and --key one of the role policy that is its own", a.contextName)
	}
	return err
}

func (x *assault) write(report *attack.Report, signer *signing.Signer) error {
	if x.report == "" {
		return nil
	}
	doc, err := report.Sign(signer)
	if err != nil {
		return err
	}
	return durablefile.Replace(x.report, append(doc, '\n'), 0o644)
}

// runPlain shows that the attacks work.
func (x *assault) runPlain(ctx context.Context, a *app, attacks []attack.Attack) error {
	ctx, cancel := context.WithTimeout(ctx, attackLimit)
	defer cancel()
	if !strings.HasPrefix(x.plain, "nats://") {
		return &usageError{msg: "--plain " + x.plain + ": want nats://host:port, without TLS and without credentials"}
	}
	rig, err := attack.OpenPlain(ctx, x.plain, nil)
	if rig != nil {
		defer rig.Close()
	}
	if err != nil {
		return &exitError{code: exitFailed, err: err}
	}
	return printAttacks(a, carryOutAttacks(ctx, rig, attacks))
}

// printAttacks prints the table, and makes the exit code of the verdict.
func printAttacks(a *app, report *attack.Report) error {
	if a.jsonOut() {
		if err := a.printJSON(report); err != nil {
			return err
		}
	} else {
		printAttackTable(a, report)
	}
	switch report.Verdict {
	case attack.Refused:
		return nil
	case attack.Succeeded:
		return &exitError{code: exitRefused, err: errAttackSucceeded}
	}
	return &exitError{code: exitFailed, err: errors.New("not all attacks were judged: that is no pass")}
}

func printAttackTable(a *app, report *attack.Report) {
	g := newGrid(a.stdout, "NO", "ATTACK", "CONTROL", "ROW", "OUTCOME", "CODE", "WHY")
	for i := range report.Results {
		t := &report.Results[i]
		why := ""
		if t.Verdict != attack.Refused {
			why = t.Detail
		}
		g.row(strconv.Itoa(t.Number), t.Name, t.Control, t.Row, string(t.Verdict), t.Code, why)
	}
	g.flush()
	var parts []string
	for _, v := range []attack.Verdict{attack.Succeeded, attack.NotJudged, attack.NotApplicable, attack.Refused} {
		if n := report.Counts[v]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, v))
		}
	}
	fmt.Fprintf(a.stdout, "\n%s: node %s, %s\n", plural(len(report.Results), "attack"), clean(report.Node), strings.Join(parts, ", "))
}

// verifyAttackReport is signet verify --attack-report.
func verifyAttackReport(ctx context.Context, a *app, file, ringFile, root string) error {
	doc, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	ring, err := fileRing(ctx, a, ringFile, root)
	if err != nil {
		return err
	}
	report, key, err := attack.VerifyReport(slices.Clip([]byte(strings.TrimSpace(string(doc)))), ring)
	if err != nil {
		if a.jsonOut() {
			_ = a.printJSON(map[string]any{"ok": false, "reason": reason(err)}) // the exit code says it too
		} else {
			fmt.Fprintf(a.stdout, "NOT VERIFIED: %s\n", clean(reason(err)))
		}
		return &exitError{code: exitRefused}
	}
	if a.jsonOut() {
		return a.printJSON(map[string]any{"ok": true, "key": key.ID, "report": report})
	}
	printAttackTable(a, report)
	fmt.Fprintf(a.stdout, "VERIFIED: a run by %s, verdict %s\n", clean(report.By), clean(string(report.Verdict)))
	facts(a.stdout, "  ", "broker", report.Broker, "begun", report.Begun.Format(time.RFC3339), "ended", report.Ended.Format(time.RFC3339), "clock", aheadOfClock(report.Ended, time.Now()),
		"policy", report.Policy, "signet", report.Signet, "key", key.ID)
	return nil
}

// contextTLS is how the broker of a context is reached by other means than the SDK.
func contextTLS(saved *client.Context) (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS13}
	if saved.CAFile == "" {
		return conf, nil
	}
	pem, err := os.ReadFile(saved.CAFile)
	if err != nil {
		return nil, err
	}
	conf.RootCAs = x509.NewCertPool()
	if !conf.RootCAs.AppendCertsFromPEM(pem) {
		return nil, &usageError{msg: saved.CAFile + " holds no certificate", fix: "signet context show"}
	}
	return conf, nil
}

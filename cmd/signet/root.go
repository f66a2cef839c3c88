package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/signetbus/signet/client"
)

// Bounds of --timeout, which bounds each call to the broker.
const (
	defaultTimeout = 5 * time.Second
	minTimeout     = 100 * time.Millisecond
	maxTimeout     = 10 * time.Minute
)

// app is one run of the command.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string

	contextName string
	timeout     time.Duration
	output      string
	started     bool // a verb was reached: what fails now is no mistyped command line
}

// outputsKey is the annotation of a verb that lists its values of -o beside table and
// json.
const outputsKey = "outputs"

// groups order the verbs in the help; what is joined by | shares a line.
var groups = []struct {
	title string
	verbs []string
}{
	{"Start", []string{"dev", "init", "serve"}},
	{"Use", []string{"pub|sub|cron"}},
	{"Govern", []string{"policy", "keys|ca"}},
	{"Recover", []string{"dlq", "refusals", "explain"}},
	{"Prove", []string{"verify", "audit", "prove|log"}},
	{"Operate", []string{"status", "doctor|attack", "cluster", "support-bundle", "context", "completion", "version"}},
}

const about = "Signet: a message bus with every event authenticated, authorised and signed."

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use: "signet", Short: about, SilenceErrors: true, SilenceUsage: true,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownVerb(cmd, args[0])
			}
			return cmd.Help()
		},
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			outputs := []string{outputTable, outputJSON}
			if more := cmd.Annotations[outputsKey]; more != "" {
				outputs = append(outputs, strings.Split(more, ",")...)
			}
			if !slices.Contains(outputs, a.output) {
				bad := a.output
				a.output = outputTable
				return fmt.Errorf("-o %s: want %s or %s", bad, strings.Join(outputs[:len(outputs)-1], ", "), outputs[len(outputs)-1])
			}
			if a.timeout < minTimeout || a.timeout > maxTimeout {
				return fmt.Errorf("--timeout %s: want %s to %s", a.timeout, minTimeout, maxTimeout)
			}
			return nil
		},
		Example: `  signet dev
  signet sub 'orders.>'
  signet pub orders.created -d '{"id":1,"total":9.5}'`,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	f := root.PersistentFlags()
	f.StringVar(&a.contextName, "context", "", "context to use (default: $SIGNET_CONTEXT, else the selected one)")
	f.DurationVar(&a.timeout, "timeout", defaultTimeout, "bound of each call to the broker")
	f.StringVarP(&a.output, "output", "o", outputTable, "table or json")
	root.AddCommand(
		devCommand(a), initCommand(a), serveCommand(a),
		pubCommand(a), subCommand(a), cronCommand(a),
		policyCommand(a), keysCommand(a), caCommand(a),
		dlqCommand(a), refusalsCommand(a), explainCommand(a),
		verifyCommand(a), auditCommand(a), proveCommand(a), logCommand(a),
		statusCommand(a), doctorCommand(a), attackCommand(a), clusterCommand(a), supportBundleCommand(a), contextCommand(a), completionCommand(a), versionCommand(a),
		exitCodesTopic(),
	)
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) { a.help(cmd) })
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return &usageError{msg: err.Error(), cmd: cmd} })
	a.markStart(root)
	_ = root.RegisterFlagCompletionFunc("context", completeContexts)                                                  // fails only for an unknown flag
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{outputTable, outputJSON}, noFiles)) // as above
	return root
}

// markStart notes when a verb of cmd's tree runs: cobra has then accepted the
// whole command line.
func (a *app) markStart(cmd *cobra.Command) {
	if run := cmd.RunE; run != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			a.started = true
			return run(cmd, args)
		}
	}
	for _, c := range cmd.Commands() {
		a.markStart(c)
	}
}

const noFiles = cobra.ShellCompDirectiveNoFileComp

func completeContexts(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	names, err := client.ListContexts()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return names, noFiles
}

// parent makes a command that only has verbs under it.
func parent(use, short, example string, verbs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Example: example, Args: cobra.ArbitraryArgs}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return &usageError{msg: "which one? " + verbsOf(cmd), cmd: cmd}
		}
		return unknownVerb(cmd, args[0])
	}
	cmd.AddCommand(verbs...)
	return cmd
}

func unknownVerb(cmd *cobra.Command, word string) error {
	hint := verbsOf(cmd)
	cmd.SuggestionsMinimumDistance = 2
	if like := cmd.SuggestionsFor(word); len(like) > 0 {
		hint = "did you mean " + strings.Join(like, " or ") + "?"
	}
	return &usageError{msg: fmt.Sprintf("there is no %q: %s", cmd.CommandPath()+" "+word, hint), cmd: cmd}
}

func verbsOf(cmd *cobra.Command) string {
	var names []string
	for _, v := range cmd.Commands() {
		if v.IsAvailableCommand() {
			names = append(names, v.Name())
		}
	}
	return strings.Join(names, ", ")
}

// action is what a verb does.
type action func(ctx context.Context, args []string) error

// verb adapts f to cobra: SIGINT and SIGTERM end its context, and whatever it
// returns then is errInterrupted. A second signal ends the process.
func (a *app) verb(f action) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if err := emptyTrust(cmd); err != nil {
			return err
		}
		ctx, cancel := context.WithCancelCause(cmd.Context())
		defer cancel(nil)
		sig := make(chan os.Signal, 1)
		signal.Notify(sig, os.Interrupt, syscall.SIGTERM)
		defer signal.Stop(sig)
		go func() {
			select {
			case <-sig:
				signal.Stop(sig)
				cancel(errInterrupted)
			case <-ctx.Done():
			}
		}()
		err := f(ctx, args)
		if errors.Is(context.Cause(ctx), errInterrupted) {
			return errInterrupted
		}
		return withCommand(err, cmd)
	}
}

// emptyTrust refuses a flag that says what to trust or whom to ask, and is given empty: the
// context would answer in its place, and the variable of a script that is not set is a slip.
func emptyTrust(cmd *cobra.Command) error {
	for _, name := range []string{"root", "keyring", "root-seed", "context", "event", "receipt", "from"} {
		if f := cmd.Flags().Lookup(name); f != nil && f.Changed && f.Value.String() == "" {
			return &usageError{msg: "--" + name + " is empty", cmd: cmd}
		}
	}
	return nil
}

// exactly is cobra.ExactArgs with the names of the arguments in its message.
func exactly(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return fmt.Errorf("%s is missing", names[len(args)])
		case len(args) > len(names):
			return fmt.Errorf("%q is one argument too many", args[len(names)])
		}
		return nil
	}
}

// help prints the page of cmd; that of the root fits one screen.
func (a *app) help(cmd *cobra.Command) {
	w := cmd.OutOrStdout()
	if cmd.HasParent() {
		writeHelp(w, cmd)
		return
	}
	fmt.Fprintf(w, "%s\nUsage: signet COMMAND [flags]\n\n", about)
	for _, g := range groups {
		title := g.title
		for _, line := range g.verbs {
			names := strings.Split(line, "|")
			var shorts []string
			for _, name := range names {
				i := slices.IndexFunc(cmd.Commands(), func(c *cobra.Command) bool { return c.Name() == name })
				shorts = append(shorts, cmd.Commands()[i].Short)
			}
			fmt.Fprintf(w, "%-8s %-14s %s\n", title, strings.Join(names, ", "), strings.Join(shorts, "; "))
			title = ""
		}
	}
	fmt.Fprint(w, "Flags of every command: --context NAME  --timeout 5s  -o table|json\n"+
		"New here: signet dev. Examples: signet COMMAND --help, signet help exit-codes.\n")
}

func writeHelp(w io.Writer, cmd *cobra.Command) {
	text := cmd.Long
	if text == "" {
		text = cmd.Short
	}
	fmt.Fprintln(w, strings.TrimSpace(text))
	if !cmd.Runnable() {
		return // a topic
	}
	fmt.Fprintf(w, "\nUsage: %s\n", usageLine(cmd))
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintln(w)
		for _, c := range cmd.Commands() {
			if c.IsAvailableCommand() {
				fmt.Fprintf(w, "  %-10s %s\n", c.Name(), c.Short)
			}
		}
	}
	if cmd.Example != "" {
		fmt.Fprintf(w, "\nExamples:\n%s\n", cmd.Example)
	}
	if f := cmd.LocalNonPersistentFlags(); f.HasAvailableFlags() {
		fmt.Fprintf(w, "\nFlags:\n%s", f.FlagUsages())
	}
	fmt.Fprint(w, "\nFlags of every command: --context NAME  --timeout 5s  -o table|json\n")
}

func usageLine(cmd *cobra.Command) string {
	if cmd.HasAvailableSubCommands() {
		return cmd.CommandPath() + " COMMAND [flags]"
	}
	return cmd.UseLine()
}

func completionCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "completion bash|zsh|fish|powershell", Short: "print the completion script of a shell",
		Args: exactly("SHELL"), ValidArgs: []string{"bash", "zsh", "fish", "powershell"}, DisableFlagsInUseLine: true,
		Example: `  source <(signet completion bash)
  signet completion zsh > "${fpath[1]}/_signet"
  signet completion fish > ~/.config/fish/completions/signet.fish`,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch root := cmd.Root(); args[0] {
			case "bash":
				return root.GenBashCompletionV2(a.stdout, true)
			case "zsh":
				return root.GenZshCompletion(a.stdout)
			case "fish":
				return root.GenFishCompletion(a.stdout, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(a.stdout)
			}
			return &usageError{msg: fmt.Sprintf("no completion for %q: bash, zsh, fish or powershell", args[0]), cmd: cmd}
		},
	}
}

// Command signet is the one binary of Signet: the broker (dev, init, serve) and
// the command line for those who use it and look after it.
//
// Server verbs run package broker in this process. All other verbs talk to a
// broker through packages client and client/admin only; policy check, policy
// can-i --policy, keys and verify need no broker at all.
//
// Results go to standard output, everything else to standard error. With
// -o json both are JSON; the shapes are those of the admin API
// (internal/adminapi), of structured CloudEvents, and of problems (RFC 9457).
// The exit codes are in docs/operations.md and `signet help exit-codes`.
//
// Concurrency: one goroutine runs the verb; signals reach it as the end of its
// context. Only this package handles signals.
package main

import (
	"context"
	"io"
	"os"
	"strings"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Getenv))
}

// run is main without the process: it returns the exit code.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer, getenv func(string) string) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr, getenv: getenv, output: outputTable}
	root := a.rootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(context.Background())
	if err == nil {
		return exitOK
	}
	if !a.started {
		// cobra found it before any verb ran: an unknown word, flag or argument.
		a.preferJSON(args)
		err = &usageError{msg: plainUsage(err), cmd: cmd}
		if strings.Contains(cmd.Annotations[outputsKey], outputNagios) {
			err = plugin(err)
		}
	}
	return a.report(err)
}

// plainUsage words what cobra says about missing flags.
func plainUsage(err error) string {
	msg := err.Error()
	rest, ok := strings.CutPrefix(msg, "required flag(s) ")
	if !ok {
		return msg
	}
	names := strings.ReplaceAll(strings.TrimSuffix(rest, " not set"), `"`, "")
	return "missing: --" + strings.ReplaceAll(names, ", ", ", --")
}

package main

import (
	"errors"
	"io/fs"

	"github.com/spf13/cobra"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing/keyring"
)

// The exit codes. They are an interface: docs/operations.md.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitRefused     = 3
	exitUnreachable = 4
	exitUnproved    = 5
	exitAgain       = 75 // EX_TEMPFAIL of sysexits.h
	exitInterrupted = 130
)

const exitCodesText = `Exit codes of every command:

  0    done; or the answer is yes
  1    failed: not found, a conflict, an unhealthy broker, an internal error
  2    wrong usage: unknown flag, missing argument, bad file, bad context,
       faults in a configuration or policy that was to be checked
  3    refused by the broker or its policy (credential, grant, schema, signature,
       rate, size), the answer is no, or an event does not verify;
       attack: an attack succeeded
  4    the broker cannot be reached, or did not answer in time
  5    audit verify and export: nothing is wrong with what is there, and something
       was not covered, such as a node that is silent; the trail is not proved
  75   serve and dev: the store had failed for want of space, and there is space
       again; started anew, the broker serves
  130  interrupted by SIGINT or SIGTERM (dev and serve: by the second one; the
       first drains and ends with 0)

signet doctor has the codes of Nagios in their place: 0 ok, 1 warning, 2 critical,
3 unknown.`

func exitCodesTopic() *cobra.Command {
	return &cobra.Command{Use: "exit-codes", Short: "the exit codes of every command", Long: exitCodesText}
}

// errInterrupted is how a verb ends after SIGINT or SIGTERM.
var errInterrupted = errors.New("interrupted")

// usageError is a mistake in what was typed, or in a file that was named. fix is
// one more line, and may be empty.
type usageError struct {
	msg, fix string
	cmd      *cobra.Command // for the hint at its help; may be nil
}

func (e *usageError) Error() string { return e.msg }

// withCommand gives a usage error the command whose help to name.
func withCommand(err error, cmd *cobra.Command) error {
	var u *usageError
	if errors.As(err, &u) && u.cmd == nil {
		u.cmd = cmd
	}
	return err
}

// exitError ends with a code. Without err nothing more is printed: the verb has
// said it all. fix is one more line, and may be empty.
type exitError struct {
	code int
	err  error
	fix  string
}

func (e *exitError) Error() string {
	if e.err == nil {
		return "failed"
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// exitCode says how err ends the process.
func exitCode(err error) int {
	var (
		exit    *exitError
		usage   *usageError
		refusal *client.Error
	)
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &exit):
		return exit.code
	case errors.Is(err, broker.ErrSpaceBack):
		return exitAgain
	case errors.Is(err, errInterrupted):
		return exitInterrupted
	case errors.As(err, &usage), errors.Is(err, client.ErrInvalidOption), errors.Is(err, client.ErrNoRoot), errors.Is(err, keyring.ErrRootKey):
		return exitUsage
	case untrusted(err):
		return exitRefused
	case errors.As(err, &refusal):
		return refusalCode(refusal)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		return exitUsage
	}
	return exitFailed
}

// untrusted reports that a keyring does not hold against the root.
func untrusted(err error) bool {
	return errors.Is(err, keyring.ErrBadSignature) || errors.Is(err, keyring.ErrExpired) || errors.Is(err, keyring.ErrRollback)
}

func refusalCode(e *client.Error) int {
	switch wire.Class(e.Class) {
	case wire.ClassUnauthenticated, wire.ClassPermissionDenied, wire.ClassBadSignature, wire.ClassSchemaViolation,
		wire.ClassRateLimited, wire.ClassTooLarge:
		return exitRefused
	case wire.ClassMalformed:
		if e.Code == 0 { // found by the SDK, before anything was sent
			return exitUsage
		}
		return exitRefused
	case wire.ClassUnavailable:
		return exitUnreachable
	}
	return exitFailed
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/internal/wire"
)

// problem is an error as -o json prints it: the problem of a refusal, and for
// every error the exit code. type is about:blank where no code is registered.
type problem struct {
	wire.Problem
	Status *int   `json:"status,omitempty"` // shadows the one of Problem: 0 means nothing
	Code   *int   `json:"code,omitempty"`
	Class  string `json:"class,omitempty"`
	Exit   int    `json:"exit"`
}

// report prints err to standard error and returns the exit code.
func (a *app) report(err error) int {
	code := exitCode(err)
	var exit *exitError
	if errors.As(err, &exit) && exit.err == nil {
		return code
	}
	if errors.Is(err, errInterrupted) {
		if !a.jsonOut() {
			fmt.Fprintln(a.stderr, "signet: interrupted")
		}
		return code
	}
	if a.jsonOut() {
		a.reportJSON(err, code)
		return code
	}
	var (
		refusal *client.Error
		usage   *usageError
	)
	switch {
	case errors.As(err, &usage):
		a.reportUsage(usage)
	case errors.As(err, &refusal):
		a.reportRefusal(refusal)
	default:
		msg, fix := explainPlain(err)
		if exit != nil && exit.fix != "" {
			fix = exit.fix
		}
		fmt.Fprintf(a.stderr, "signet: %s\n", indentLines(msg))
		facts(a.stderr, "  ", "fix", fix)
	}
	return code
}

func (a *app) reportUsage(u *usageError) {
	fmt.Fprintf(a.stderr, "signet: %s\n", indentLines(plain(u.msg)))
	pairs := []string{"fix", u.fix}
	if u.cmd != nil && u.fix == "" {
		pairs = append(pairs, "usage", usageLine(u.cmd), "help", u.cmd.CommandPath()+" --help")
	}
	facts(a.stderr, "  ", pairs...)
}

// reportRefusal prints one block: what, and every fact that helps.
func (a *app) reportRefusal(e *client.Error) {
	fmt.Fprintf(a.stderr, "signet: %s\n", clean(headline(e)))
	code := ""
	if e.Code != 0 {
		code = fmt.Sprintf("%d %s (%s)", e.Code, e.Name, e.Class)
	}
	retry := ""
	if e.RetryAfter > 0 {
		retry = e.RetryAfter.String()
	}
	cause := ""
	if e.Err != nil && e.Code == 0 {
		cause = causeText(e.Err)
	}
	pairs := []string{
		"detail", e.Detail, "cause", cause, "code", code, "rule", e.Rule, "subject", e.Subject, "principal", e.Principal,
		"retry after", retry,
	}
	for _, v := range e.Violations {
		pairs = append(pairs, "violation", violationText(wire.Violation(v)))
	}
	if e.Truncated {
		pairs = append(pairs, "violation", "... and more")
	}
	if e.EventID != "" && errors.Is(e, context.DeadlineExceeded) {
		pairs = append(pairs, "event id", e.EventID+" (publish again with --id to be safe from duplicates)")
	}
	if x := e.Explain; x != nil {
		pairs = append(pairs, "nearest grant", x.Nearest, "policy", place(x.File, x.Line))
	}
	if e.Ref != "" {
		pairs = append(pairs, "ref", e.Ref+" (signet explain "+e.Ref+")")
	}
	facts(a.stderr, "  ", append(pairs, "fix", a.fix(e))...)
}

// headline says in one line what happened.
func headline(e *client.Error) string {
	title := e.Title
	if title == "" {
		title = e.Class
	}
	switch {
	case e.Code >= 40000 && wire.Class(e.Class) != wire.ClassUnavailable && wire.Class(e.Class) != wire.ClassInternal &&
		wire.Class(e.Class) != wire.ClassNotFound:
		return "refused: " + title
	case e.Op == "connect" && wire.Class(e.Class) == wire.ClassUnavailable && !errors.Is(e, client.ErrKeyring):
		return "cannot reach the broker"
	case e.Op != "" && !strings.HasPrefix(e.Op, wire.PrefixAdmin):
		return e.Op + ": " + title
	}
	return title
}

// fix says what the caller can do, ready to be copied.
func (a *app) fix(e *client.Error) string {
	switch {
	case errors.Is(e, client.ErrKeyring) && untrusted(e):
		return "the root key of the context does not fit this broker: signet context show"
	case e.Code == 0 && errors.Is(e, client.ErrUnauthenticated):
		return "the policy does not know this credential: signet context show"
	case e.Op == "connect" && e.Code == 0:
		return connectFix(e.Err)
	case e.Code == int(wire.CodeNotFound) && e.Rule == "log":
		return "signet log ls lists the streams that have a log, and how far each one is"
	}
	fix := fillFix(e.Fix, e.Subject, e.Principal, e.Ref)
	if e.Explain != nil && e.Explain.Fix != "" {
		fix = e.Explain.Fix
	}
	if others := a.otherContexts(); others != "" && e.Code == int(wire.CodeAdminDenied) {
		fix += "; or use --context with another of this broker: " + others
	}
	return fix
}

// fillFix puts the facts into the placeholders of a registered fix.
func fillFix(fix, subject, principal, ref string) string {
	_, name, ok := strings.Cut(principal, "/")
	if !ok {
		name = principal
	}
	if name == "" {
		fix = strings.ReplaceAll(fix, " --as PRINCIPAL", "")
	}
	var swaps []string
	for _, s := range [][2]string{
		{"PRINCIPAL", name},
		{"SERVICE.ENDPOINT", shellWord(strings.TrimPrefix(subject, wire.PrefixRPC))},
		{"SUBJECT", shellWord(subject)},
		{"REF", ref},
	} {
		if s[1] != "" {
			swaps = append(swaps, s[0], s[1])
		}
	}
	return strings.NewReplacer(swaps...).Replace(fix)
}

// shellWord quotes s where a shell would read it as more than a word.
func shellWord(s string) string {
	if strings.ContainsAny(s, "*>$ '\"\\&;|<()#`") {
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	return s
}

// otherContexts lists the other contexts that lead to the same broker.
func (a *app) otherContexts() string {
	current, err := a.loadContext()
	if err != nil {
		return ""
	}
	names, err := client.ListContexts()
	if err != nil {
		return ""
	}
	var out []string
	for _, n := range names {
		if c, err := client.LoadContext(n); err == nil && n != current.Name && c.URL == current.URL {
			out = append(out, n)
		}
	}
	return strings.Join(out, ", ")
}

func connectFix(err error) string {
	if err == nil {
		return ""
	}
	text := err.Error()
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns):
		return "check the host name: signet context show"
	case strings.Contains(text, "not yet valid"): // expired, or a clock that is wrong: nobody here knows which
		return "compare the clock of this machine with that of the broker (date -u); if both are right, renew the broker's certificate: signet doctor"
	case strings.Contains(text, "x509:") || strings.Contains(text, "certificate"):
		return "check that the CA file of the context is the one of this broker: signet context show"
	case strings.Contains(text, "tls:"):
		return "is that port a Signet broker? signet context show"
	case errors.Is(err, nats.ErrMaxConnectionsExceeded), strings.Contains(text, nats.MAX_CONNECTIONS_ERR):
		return "close connections of this principal; by which limit, an operator sees: signet status --throttled"
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, nats.ErrNoServers):
		return "is the broker running there? signet context show; for one on this machine: signet dev"
	}
	return "check server and network: signet context show; wait longer with --timeout"
}

// causeText is the last word of an error chain, without the names of packages.
func causeText(err error) string {
	if errors.Is(err, nats.ErrNoServers) { // which is how nats.go says it
		return "connection refused"
	}
	return strings.ReplaceAll(plain(err.Error()), "\n", ": ")
}

// explainPlain words errors that came from no broker.
func explainPlain(err error) (msg, fix string) {
	msg = strings.TrimPrefix(plain(err.Error()), "invalid option: ")
	var path *fs.PathError
	if errors.As(err, &path) && errors.Is(err, fs.ErrNotExist) {
		return fmt.Sprintf("there is no file %s", path.Path), ""
	}
	if errors.Is(err, client.ErrNoRoot) {
		return "no root key is pinned, so no event could be verified", "signet context add NAME ... --root O..."
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		fix = "another program has this port; choose another one: listen and ops.listen of the configuration, --listen and --ops of signet dev (port 0: any that is free)"
	}
	return msg, fix
}

// packageNames are the words before errors that say where in the code they come from. Those
// that a user knows as well, such as policy, schema, keyring and ca, stay.
var packageNames = regexp.MustCompile(`(^|: |\n)(?:(?:adminapi|admin|attack|auditlog|backupfile|broker|client|cloudevent|dlq|dsse|embed|` +
	`integrity|jsapi|nats|payload|sdkevent|signing|store|tlog|translog|wire): )+`)

// plain is the text of an error for who does not read the code.
func plain(text string) string { return packageNames.ReplaceAllString(text, "$1") }

func indentLines(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = clean(lines[i])
	}
	return strings.Join(lines, "\n  ")
}

func (a *app) reportJSON(err error, exit int) {
	p := problem{Exit: exit}
	var e *client.Error
	if errors.As(err, &e) {
		p.Type, p.Title = "about:blank", headline(e)
		if e.Code != 0 {
			status := wire.Code(e.Code).Entry().Status
			p.Type, p.Title, p.Status, p.Code = "urn:signet:problem:"+e.Name, e.Title, &status, &e.Code
		}
		p.Class, p.Rule, p.Subject, p.Principal, p.Ref = e.Class, e.Rule, e.Subject, e.Principal, e.Ref
		p.Detail, p.RetryAfterMs, p.Truncated, p.Fix = e.Detail, e.RetryAfter.Milliseconds(), e.Truncated, a.fix(e)
		if e.Err != nil && p.Detail == "" && e.Code == 0 {
			p.Detail = causeText(e.Err)
		}
		for _, v := range e.Violations {
			p.Violations = append(p.Violations, wire.Violation(v))
		}
		if e.Explain != nil {
			x := wire.Explanation(*e.Explain)
			p.Explain = &x
		}
	} else {
		p.Type = "about:blank"
		p.Title, p.Fix = explainPlain(err)
		var u *usageError
		if errors.As(err, &u) {
			p.Title, p.Fix = plain(u.msg), u.fix
		}
	}
	b, merr := json.Marshal(p)
	if merr != nil { // no field of a problem can fail to encode
		b = []byte(strconv.Quote(err.Error()))
	}
	fmt.Fprintf(a.stderr, "%s\n", b)
}

func violationText(v wire.Violation) string {
	at := v.At
	if at == "" {
		at = "(whole payload)"
	}
	s := at + ": " + v.Message
	if v.Want != "" && !strings.Contains(v.Message, v.Want) {
		s += ", want " + v.Want
	}
	if v.Got != "" && !strings.Contains(v.Message, v.Got) {
		s += ", got " + v.Got
	}
	return s
}

func place(file string, line int) string {
	if file == "" || line == 0 {
		return file
	}
	return file + ":" + strconv.Itoa(line)
}

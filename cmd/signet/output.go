package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"
)

// Values of -o.
const (
	outputTable = "table"
	outputJSON  = "json"
)

func (a *app) jsonOut() bool { return a.output == outputJSON }

// preferJSON finds -o json in a command line that was not parsed to its end, so
// that its error is JSON too.
func (a *app) preferJSON(args []string) {
	line := " " + strings.Join(args, " ") + " "
	for _, form := range []string{" -o json ", " -ojson ", " -o=json ", " --output json ", " --output=json "} {
		if strings.Contains(line, form) {
			a.output = outputJSON
		}
	}
}

// printJSON writes one document for people and programs.
func (a *app) printJSON(v any) error {
	e := json.NewEncoder(a.stdout)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// printLine writes one document on one line, for streams of them.
func (a *app) printLine(v any) error {
	e := json.NewEncoder(a.stdout)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// note writes one line for people to standard error, unless -o json asks for
// machine output there.
func (a *app) note(format string, args ...any) {
	if !a.jsonOut() {
		fmt.Fprintf(a.stderr, "signet: "+format+"\n", args...)
	}
}

// grid is a table whose cells are made safe for a terminal.
type grid struct{ tw *tabwriter.Writer }

func newGrid(w io.Writer, titles ...string) *grid {
	g := &grid{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	if len(titles) > 0 {
		g.row(titles...)
	}
	return g
}

func (g *grid) row(cells ...string) {
	for i := range cells {
		if cells[i] = clean(cells[i]); cells[i] == "" {
			cells[i] = "-"
		}
	}
	fmt.Fprintln(g.tw, strings.Join(cells, "\t"))
}

// flush writes the table; an error is one of standard output, which the next
// write shows too.
func (g *grid) flush() { _ = g.tw.Flush() }

// facts prints "name  value" lines, without those that have no value.
func facts(w io.Writer, indent string, pairs ...string) {
	width := 0
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			width = max(width, len(pairs[i]))
		}
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			fmt.Fprintf(w, "%s%-*s  %s\n", indent, width, pairs[i], clean(pairs[i+1]))
		}
	}
}

// clean escapes what could steer a terminal: control characters, bidirectional
// controls and bytes that are not UTF-8. Events may hold any of them.
func clean(s string) string {
	ok := true
	for _, r := range s {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			ok = false
			break
		}
	}
	if ok {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
		}
		i += n
	}
	return b.String()
}

// payload shows data on one line.
func payload(data []byte) string {
	if !utf8.Valid(data) {
		const most = 32
		if len(data) > most {
			return fmt.Sprintf("0x%x... (%d bytes)", data[:most], len(data))
		}
		return fmt.Sprintf("0x%x", data)
	}
	return clean(strings.TrimRight(string(data), "\r\n"))
}

func size(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	f, i := float64(n), 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	if i == 0 || f == float64(int64(f)) {
		return fmt.Sprintf("%.0f %s", f, units[i])
	}
	return fmt.Sprintf("%.1f %s", f, units[i])
}

// span shows a duration with the two units that matter.
func span(d time.Duration) string {
	switch d = d.Abs(); {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	case d >= time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	}
	return d.Round(time.Second).String()
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

func count(n uint64) string {
	if n == 0 {
		return "0"
	}
	return strconv.FormatUint(n, 10)
}

func plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + one + "s"
}

// terminal reports whether w is a character device that a person may look at.
func terminal(w any) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}

// since reads "10m", an RFC 3339 time, or nothing.
func since(flag, s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	return time.Time{}, &usageError{msg: fmt.Sprintf("%s %q: want a span such as 10m or a time such as 2026-01-31T15:04:05Z", flag, s)}
}

package doctor

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
)

// WritePrometheus writes r in the text exposition format: one gauge for each finding,
// and its figure where there is one.
func (r *Report) WritePrometheus(w io.Writer) error {
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, "# HELP signet_doctor_severity The worst finding: 0 ok, 1 warning, 2 critical, 3 unknown.\n# TYPE signet_doctor_severity gauge\nsignet_doctor_severity %d\n", r.Severity)
	fmt.Fprintf(b, "# HELP signet_doctor_time_seconds Unix time of the examination.\n# TYPE signet_doctor_time_seconds gauge\nsignet_doctor_time_seconds %d\n", r.Time.Unix())
	fmt.Fprint(b, "# HELP signet_doctor_check One check on one object: 0 ok, 1 warning, 2 critical, 3 unknown.\n# TYPE signet_doctor_check gauge\n")
	seen := map[string]bool{} // a series may stand there once; the worst comes first
	for i := range r.Findings {
		f := &r.Findings[i]
		if labels := labels(f); !seen[labels] {
			seen[labels] = true
			fmt.Fprintf(b, "signet_doctor_check{%s} %d\n", labels, f.Severity)
		}
	}
	fmt.Fprint(b, "# HELP signet_doctor_value The figure behind a check, in seconds, bytes, percent or a count.\n# TYPE signet_doctor_value gauge\n")
	clear(seen)
	for i := range r.Findings {
		f := &r.Findings[i]
		if labels := labels(f); f.Measure != nil && !seen[labels] {
			seen[labels] = true
			fmt.Fprintf(b, "signet_doctor_value{%s} %s\n", labels, figure(f.Measure.Value))
		}
	}
	return b.Flush()
}

var escapeLabel = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

func labels(f *Finding) string {
	return `id="` + escapeLabel.Replace(f.ID) + `",object="` + escapeLabel.Replace(strings.ToValidUTF8(f.Object, "?")) + `"`
}

// WriteNagios writes r as one line of a Nagios plugin, with performance data.
func (r *Report) WriteNagios(w io.Writer) error {
	var text, perf []string
	for i := range r.Findings {
		f := &r.Findings[i]
		if f.Severity != OK {
			text = append(text, strings.TrimSpace(f.ID+" "+f.Object)+": "+f.What)
		}
		if m := f.Measure; m != nil {
			name := strings.TrimSpace(f.ID + " " + f.Object)
			perf = append(perf, fmt.Sprintf("'%s'=%s%s;%s;%s", strings.NewReplacer("'", "", "=", "_").Replace(name), figure(m.Value), m.Unit, limit(m.Warning, m.Below), limit(m.Critical, m.Below)))
		}
	}
	summary := fmt.Sprintf("%d critical, %d warning, %d unknown, %d ok", r.Count(Critical), r.Count(Warning), r.Count(Unknown), r.Count(OK))
	if len(text) > 0 {
		summary += ": " + strings.Join(text, "; ")
	}
	line := "SIGNET " + strings.ToUpper(r.Severity.String()) + " - " + plain(summary)
	if len(perf) > 0 {
		line += " | " + plain(strings.Join(perf, " "))
	}
	_, err := fmt.Fprintln(w, line)
	return err
}

// limit writes a threshold as Nagios reads it: "20:" is an alarm below 20.
func limit(v *float64, below bool) string {
	if v == nil {
		return ""
	}
	if below {
		return figure(*v) + ":"
	}
	return figure(*v)
}

// plain takes out what ends the line or begins the performance data.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '|':
			return '/'
		case !unicode.IsPrint(r):
			return ' '
		}
		return r
	}, s)
}

func figure(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

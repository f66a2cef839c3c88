package bench

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/signetbus/signet/client"
)

var orderedOption = client.Ordered()

func fileName(workload string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(workload))
}

// Spread is the median of a series with its least and greatest value.
type Spread struct{ Median, Min, Max float64 }

func spread(v []float64) Spread {
	if len(v) == 0 {
		return Spread{}
	}
	v = slices.Sorted(slices.Values(v))
	m := v[len(v)/2]
	if len(v)%2 == 0 {
		m = (v[len(v)/2-1] + m) / 2
	}
	return Spread{Median: m, Min: v[0], Max: v[len(v)-1]}
}

func (s Spread) text(format string) string {
	return fmt.Sprintf(format+" ("+format+"-"+format+")", s.Median, s.Min, s.Max)
}

// Check is one target and what was measured.
type Check struct {
	Name   string
	Want   string
	Got    string
	OK     bool
	Strict bool // a miss fails a strict run; the others are the design's budget
}

// of collects one value of every figure of a series.
func (r *Results) of(workload string, kind Kind, value func(*Figure) float64) []float64 {
	var out []float64
	for _, f := range r.Figures[Key{workload, kind}] {
		out = append(out, value(f))
	}
	return out
}

// ratio compares two series round by round: one round has one weather.
func (r *Results) ratio(signet, raw string, value func(*Figure) float64) Spread {
	return r.compare(signet, raw, value, func(s, b float64) float64 { return s / b })
}

func (r *Results) compare(signet, raw string, value func(*Figure) float64, f func(s, b float64) float64) Spread {
	return spread(byRound(r.of(signet, Signet, value), r.of(raw, Raw, value), f))
}

// byRound compares two series round by round, as far as both go.
func byRound(a, b []float64, f func(a, b float64) float64) []float64 {
	var out []float64
	for i := range min(len(a), len(b)) {
		out = append(out, f(a[i], b[i]))
	}
	return out
}

func rate(f *Figure) float64 { return f.Rate() }
func cpu(f *Figure) float64  { return f.CPU() }
func p50(f *Figure) float64  { return float64(f.P50.Nanoseconds()) / 1e3 }
func allocs(f *Figure) float64 {
	return float64(f.Server.Allocs) / float64(f.Events)
}
func stored(f *Figure) float64 { return float64(f.Stored) / float64(f.Events) }

func difference(s, b float64) float64 { return s - b }

// Checks compares the results with the targets.
func (r *Results) Checks() []Check {
	var out []Check
	add := func(strict bool, name, want, got string, ok bool) {
		out = append(out, Check{Name: name, Want: want, Got: got, OK: ok, Strict: strict})
	}
	none := Spread{} // a workload that was left out
	atLeast := func(strict bool, name string, s Spread, low float64) {
		if s == none {
			return
		}
		add(strict, name, fmt.Sprintf(">= %.1fx raw", low), s.text("%.2f"), s.Median >= low)
	}
	atMost := func(name string, s Spread, high float64, unit, format string) {
		if s == none {
			return
		}
		add(false, name, fmt.Sprintf("<= "+format+" %s", high, unit), s.text(format), s.Median <= high)
	}
	const sync1Lazy, sync1Fsync = "sync 256 B schema, 1 publisher, lazy", "sync 256 B schema, 1 publisher, fsync"
	const ordered, verified = "read, ordered consumer", "read, verifying SDK, ordered"
	for _, w := range r.Order {
		switch {
		case w == sameHeadersWorkload || w == readAlongWorkload: // raw only
		case w == loggedWorkload || w == lagWorkload || strings.HasPrefix(w, "fairness"): // Signet only
		case strings.HasPrefix(w, "async") && strings.HasSuffix(w, "lazy"):
			// The target is for ACL, limit and attestation; with a schema it is news.
			atLeast(strings.Contains(w, "plain"), w, r.ratio(w, w, rate), 0.6)
		case strings.HasSuffix(w, "fsync") && w != sync1Fsync:
			// The target is what one durability barrier gives, and was set on one
			// connection. A connection of its own for every publisher also means a
			// signature and four socket hops of its own for every event.
			atLeast(!strings.Contains(w, "64 connections"), w, r.ratio(w, w, rate), 5)
		case strings.HasPrefix(w, "read") && w != verified:
			atLeast(true, w+" (equal size)", r.ratio(w, w, rate), 0.8)
		}
	}
	const hot = "async 256 B schema, lazy"
	atLeast(false, hot+", design", r.ratio(hot, hot, rate), 0.8)
	atMost(hot+", server CPU per event over raw", r.compare(hot, hot, cpu, difference), 5, "us", "%.1f")
	atMost(hot+", server CPU per event over raw with the same headers", r.compare(hot, sameHeadersWorkload, cpu, difference), 5, "us", "%.1f")
	atMost(hot+", heap objects per event over raw with the same headers", r.compare(hot, sameHeadersWorkload, allocs, difference), 0.1, "", "%.2f")
	atMost(hot+", stored bytes over the raw payload", r.compare(hot, hot, stored, difference), 650, "B", "%.0f")
	atMost(sync1Lazy+", p50 over raw", r.compare(sync1Lazy, sync1Lazy, p50, difference), 100, "us", "%.0f")
	atMost(sync1Fsync+", p50", r.compare(sync1Fsync, sync1Fsync, p50, func(s, b float64) float64 { return s / b }), 1.2, "x raw", "%.2f")
	for _, w := range r.Order {
		if strings.HasSuffix(w, "fsync") && strings.HasPrefix(w, "async") {
			atLeast(false, w+", design", r.ratio(w, w, rate), 8)
		}
	}
	atLeast(false, verified+", against a raw ordered consumer (equal size)", r.ratio(verified, ordered, rate), 0.5)
	out = append(out, r.fairnessChecks()...)
	out = append(out, r.signatureChecks()...)
	raw, signet := r.Idle[Raw], r.Idle[Signet]
	if signet.Connections == 0 {
		return out
	}
	add(false, fmt.Sprintf("memory of an idle connection, of %d", signet.Connections), "<= 2.0x raw",
		fmt.Sprintf("%.2f (%.1f KiB: heap %.1f, stacks %.1f; raw %.1f KiB: heap %.1f, stacks %.1f)", signet.RSS/raw.RSS,
			signet.RSS/1024, signet.Heap/1024, signet.Stacks/1024, raw.RSS/1024, raw.Heap/1024, raw.Stacks/1024), signet.RSS <= 2*raw.RSS)
	add(false, "goroutines of an idle connection", "<= 4", fmt.Sprintf("%.2f (raw %.2f)", signet.Goroutines, raw.Goroutines), signet.Goroutines <= 4.005)
	return out
}

// signatureChecks compares what signatures and the log cost with their targets.
func (r *Results) signatureChecks() []Check {
	var out []Check
	for _, st := range r.Steps {
		if s := spread(st.Micros); st.Most > 0 {
			out = append(out, Check{
				Name: st.Name + ", per event", Want: fmt.Sprintf("<= %.1f us", st.Most), Got: s.text("%.2f"), OK: s.Median <= st.Most, Strict: true,
			})
		}
	}
	const off = "async 256 B plain, lazy"
	if more := byRound(r.of(loggedWorkload, Signet, cpu), r.of(off, Signet, cpu), difference); len(more) > 0 {
		s, got := spread(more), ""
		if reader := byRound(r.of(readAlongWorkload, Raw, cpu), r.of(sameHeadersWorkload, Raw, cpu), difference); len(reader) > 0 {
			got = "; of plain nats-server with one reader on minus off: " + spread(reader).text("%.1f")
		}
		out = append(out, Check{
			Name: off + ", server CPU per event with the log on minus off", Want: "<= 6 us", Got: s.text("%.1f") + got, OK: s.Median <= 6, Strict: true,
		})
	}
	seconds := func(f *Figure) float64 { return f.P99.Seconds() }
	if ages := r.of(lagWorkload, Signet, seconds); len(ages) > 0 {
		s, got := spread(ages), spread(r.of(lagWorkload, Signet, rate))
		out = append(out, Check{
			Name: fmt.Sprintf("%s, greatest age of an event that no checkpoint covers (at %.0f/s)", lagWorkload, got.Median),
			Want: "<= 2 s", Got: s.text("%.2f"), OK: s.Max <= 2 && got.Min > 0.95*lagRate, Strict: true,
		})
	}
	return out
}

// Missed reports whether a strict target was missed.
func Missed(checks []Check) bool {
	return slices.ContainsFunc(checks, func(c Check) bool { return c.Strict && !c.OK })
}

// Environment is where and how the measurement ran.
type Environment struct {
	Command, Machine, Versions, Volume string
	Date                               time.Time
	Plan                               Plan
}

const method = `Raw is nats-server with JetStream, TLS 1.3, a client key and defaults otherwise; Signet has TLS 1.3, policy, ACL, a rate limit
that is too high to bite, headers made and attestation on, and for "schema" rows JSON Schema validation, in every figure. The
streams of both have the same settings. Each server is a process of its own, new for every round; both stand side by side
and take turns in every workload, and who goes first changes with the round. The client is unmodified nats.go in the process of
the driver, which shares the processor cores with the server. "lazy" is Signet's unsafe-lazy-sync against the server's default;
"fsync" is Signet's default, the durability barrier, against SyncAlways: an acknowledgement then means stable storage on both
sides. Reading compares equal sizes: the raw server stores a copy of a message that Signet stored, headers included. Ratios are
formed per round; given are median (least-greatest). "async 256 B with the headers of Signet" is the raw server alone, fed with the
header block that Signet makes: what the longer message costs the client and nats-server before any code of Signet has run. "read along"
is that with one push consumer that nothing is acknowledged to, and its CPU counts until the reader has all events.
"logged" is a stream with a log: its server CPU counts until a signed checkpoint covers every event. At 30000/s p50 / p99 of the
row are the median and the greatest age of the oldest event that no checkpoint covers, looked at every 50 ms. "fairness" is one
publisher that waits for each acknowledgement, alone and then beside another principal that publishes as fast as it may with 1024
unanswered, at its limit or refused without end.
`

// Write writes the report.
func (r *Results) Write(w io.Writer, env *Environment) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# Signet against raw JetStream\n\nWritten by `%s`; do not edit.\n\n", env.Command)
	fmt.Fprintf(&b, "- Date: %s, took %s\n- Machine: %s\n- Versions: %s\n- Store volume: %s\n", env.Date.UTC().Format("2006-01-02 15:04 MST"),
		r.Took.Round(time.Second), env.Machine, env.Versions, env.Volume)
	p := &env.Plan
	fmt.Fprintf(&b, "- Plan: %d rounds, %v per publishing run after %v of warming up, %d events per reading run, %d in flight (lazy)\n\n",
		p.Rounds, p.Window, p.Warm, p.ReadEvents, p.LazyWindow)
	b.WriteString("## Method\n\n" + method + "\n## Targets\n\n")
	checks := r.Checks()
	table(&b, checks, true)
	b.WriteString("\n## Budget of the design\n\nTighter than the targets, and not all of it reached.\n\n")
	table(&b, checks, false)
	b.WriteString("\n## Figures\n\nMedian (least-greatest) over the rounds. CPU and heap objects are those of the server process, per event.\n\n")
	r.figures(&b)
	if len(r.Steps) > 0 {
		b.WriteString("\n## Signatures\n\nEach step by itself on one core, in the process of the driver, events of 256 B; microseconds and heap objects per event.\n\n| step | us | heap objects |\n|---|---|---|\n")
		for _, st := range r.Steps {
			fmt.Fprintf(&b, "| %s | %s | %.2f |\n", st.Name, spread(st.Micros).text("%.2f"), spread(st.Allocs).Median)
		}
	}
	b.WriteString("\n## Raw figures\n\nEvents per second in each round.\n\n")
	r.rounds(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

func table(b *strings.Builder, checks []Check, strict bool) {
	b.WriteString("| what | wanted | measured | |\n|---|---|---|---|\n")
	for _, c := range checks {
		if c.Strict != strict {
			continue
		}
		mark := "pass"
		if !c.OK {
			mark = "**MISS**"
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s |\n", c.Name, c.Want, c.Got, mark)
	}
}

func (r *Results) figures(b *strings.Builder) {
	b.WriteString("| workload | server | events/s | p50 / p99 us | CPU us | heap objects | heap B | stored B |\n|---|---|---|---|---|---|---|---|\n")
	for _, w := range r.Order {
		for _, kind := range []Kind{Raw, Signet} {
			s := r.Figures[Key{w, kind}]
			if len(s) == 0 {
				continue
			}
			of := func(value func(*Figure) float64) Spread { return spread(r.of(w, kind, value)) }
			latency, size := "", ""
			if s[0].P50 > 0 {
				p99 := of(func(f *Figure) float64 { return float64(f.P99.Nanoseconds()) / 1e3 })
				latency = fmt.Sprintf("%.0f / %.0f", of(p50).Median, p99.Median)
			}
			if s[0].Stored > 0 {
				size = fmt.Sprintf("%.0f", of(stored).Median)
			} else {
				size = fmt.Sprintf("%d read", r.Message[kind])
			}
			bytes := of(func(f *Figure) float64 { return float64(f.Server.AllocBytes) / float64(f.Events) })
			fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %.2f | %.0f | %s |\n", w, kind, of(rate).text("%.0f"), latency,
				of(cpu).text("%.1f"), of(allocs).Median, bytes.Median, size)
		}
	}
}

func (r *Results) rounds(b *strings.Builder) {
	b.WriteString("```\n")
	for _, w := range r.Order {
		for _, kind := range []Kind{Raw, Signet} {
			if s := r.of(w, kind, rate); len(s) > 0 {
				fmt.Fprintf(b, "%-60s %-7s", w, kind)
				for _, v := range s {
					fmt.Fprintf(b, " %8.0f", v)
				}
				b.WriteByte('\n')
			}
		}
	}
	b.WriteString("```\n")
}

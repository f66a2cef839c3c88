package doctor

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxScrape bounds what is read of one answer of the operations port.
const maxScrape = 16 << 20

// Scrape examines the operations port at base, http://host:port. It returns the text
// of the metrics too, empty when they could not be read.
func Scrape(ctx context.Context, base string, timeout time.Duration, t Thresholds, now time.Time) (found []Finding, metrics string) {
	var all findings
	f := online{&all}
	base = strings.TrimSuffix(base, "/")
	for _, probe := range []struct{ id, path, fix string }{
		{idLive, "/livez", "restart the broker, after a look at its disk and its log"},
		{idReady, "/readyz", "HEALTH_001 or the log of the broker says which part; a full volume needs space"},
	} {
		status, body, err := get(ctx, base+probe.path, timeout)
		switch {
		case err != nil:
			f.add(probe.id, base, Critical, "is the broker running, and is ops.listen this address?", "%s", oneLine(err))
		case status != http.StatusOK:
			f.add(probe.id, base, Critical, probe.fix, "%s", strings.TrimSpace(firstLine(body)))
		default:
			f.add(probe.id, base, OK, "", "ok")
		}
	}
	status, body, err := get(ctx, base+"/metrics", timeout)
	if err != nil || status != http.StatusOK {
		why := fmt.Sprintf("status %d", status)
		if err != nil {
			why = oneLine(err)
		}
		f.add(idScrape, base, Unknown, "curl "+base+"/metrics", "%s", why)
		return all, ""
	}
	f.add(idScrape, base, OK, "", "%d bytes", len(body))
	f.metrics(base, parseMetrics(body), t, now)
	return all, body
}

func get(ctx context.Context, url string, timeout time.Duration) (status int, body string, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	// A client of its own: no proxy of the environment, no connection left behind.
	hc := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := hc.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer answer.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(answer.Body, maxScrape))
	return answer.StatusCode, string(raw), err
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	return s
}

// sample is one line of the text exposition. labels is the text between the braces.
type sample struct {
	name, labels string
	value        float64
}

// parseMetrics reads the text exposition as far as the checks need it.
func parseMetrics(text string) []sample {
	var out []sample
	lines := bufio.NewScanner(bytes.NewReader([]byte(text)))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, "#") {
			continue
		}
		at := strings.LastIndexByte(line, ' ')
		if at < 0 {
			continue
		}
		v, err := strconv.ParseFloat(line[at+1:], 64)
		if err != nil {
			continue
		}
		name, labels, _ := strings.Cut(line[:at], "{")
		out = append(out, sample{name, strings.TrimSuffix(labels, "}"), v})
	}
	return out
}

// label returns the value of one label. Ours hold no escapes.
func (s *sample) label(name string) string {
	_, rest, ok := strings.Cut(","+s.labels, ","+name+`="`)
	if !ok {
		return ""
	}
	v, _, _ := strings.Cut(rest, `"`)
	return v
}

func (f online) metrics(base string, all []sample, t Thresholds, now time.Time) {
	one := map[string]float64{}
	limits, stored := map[string]float64{}, map[string]float64{}
	for i := range all {
		s := &all[i]
		switch {
		case s.name == "signet_store_bytes" && s.label("what") == "limit":
			limits[s.label("tenant")] = s.value
		case s.name == "signet_store_bytes" && s.label("what") == "stored":
			stored[s.label("tenant")] = s.value
		case s.labels == "":
			one[s.name] = s.value
		}
	}
	if v, ok := one["signet_reload_ok"]; ok {
		s, what := OK, "went well"
		if v != 1 {
			s, what = Critical, "the last reload failed: the old policy, keys and certificates stay in force"
		}
		f.add(idReload, base, s, "the log of the broker has every fault; signet serve --config FILE --check", "%s", what)
	}
	if v, ok := one["signet_attestation_expiry_seconds"]; ok {
		f.expiry(idAttestation, base, time.Unix(int64(v), 0), now, t, "put keys/root.seed back, then: signet init DIR", "the right to attest")
	}
	if v, ok := one["signet_gate_panics_total"]; ok {
		f.above(idPanics, base, v, "", Pair{Warning: 1}, "please report it: the log has the stack", "%.0f since its start", v)
	}
	if most := one["process_max_fds"]; most > 0 {
		percent := 100 * one["process_open_fds"] / most
		f.above(idOpenFiles, base, percent, "%", t.OpenFiles, "LimitNOFILE= of the service (ulimit -n), or lower gate.maxConnections", "%.0f of %.0f descriptors are open", one["process_open_fds"], most)
	}
	f.logs(all, t)
	for _, tenant := range sortedKeys(limits) {
		f.full(idTenantFull, tenant, stored[tenant], limits[tenant], t, "raise storage.maxBytes, or lower what the tenant's streams keep")
	}
}

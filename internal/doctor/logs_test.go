package doctor

import (
	"strings"
	"testing"
)

// The metrics of a broker whose logs are well, slow, stuck and wrong.
func TestLogs(t *testing.T) {
	text := `# HELP signet_log_behind_seconds x
signet_log_behind_seconds{tenant="shop",stream="WELL"} 0.3
signet_log_behind_seconds{tenant="shop",stream="SLOW"} 12
signet_log_behind_seconds{tenant="shop",stream="STUCK"} 600
signet_log_behind_seconds{tenant="shop",stream="WRONG"} 0
signet_log_disagrees{tenant="shop",stream="WELL"} 0
signet_log_disagrees{tenant="shop",stream="WRONG"} 1
signet_log_used_bytes{tenant="shop",stream="WELL"} 50
signet_log_room_bytes{tenant="shop",stream="WELL"} 100
signet_log_used_bytes{tenant="shop",stream="SLOW"} 96
signet_log_room_bytes{tenant="shop",stream="SLOW"} 100
`
	var all findings
	online{&all}.logs(parseMetrics(text), DefaultThresholds())
	got := map[string]Severity{}
	for i := range all {
		got[all[i].ID+" "+strings.TrimPrefix(all[i].Object, "shop/")] = all[i].Severity
	}
	for name, want := range map[string]Severity{
		"LOG_001 WELL": OK, "LOG_001 SLOW": Warning, "LOG_001 STUCK": Critical, "LOG_001 WRONG": Critical, "LOG_002 WELL": OK, "LOG_002 SLOW": Critical,
	} {
		if have, ok := got[name]; !ok || have != want {
			t.Errorf("%s: %v, want %v", name, have, want)
		}
		delete(got, name)
	}
	if len(got) > 0 {
		t.Errorf("also found: %v", got)
	}
}

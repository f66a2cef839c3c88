package doctor

import "time"

// logs judges the logs of streams that a node writes, by its metrics.
func (f online) logs(all []sample, t Thresholds) {
	behind, disagrees := map[string]float64{}, map[string]bool{}
	used, room := map[string]float64{}, map[string]float64{}
	for i := range all {
		s := &all[i]
		object := s.label("tenant") + "/" + s.label("stream")
		switch s.name {
		case "signet_log_behind_seconds":
			behind[object] = s.value
		case "signet_log_disagrees":
			disagrees[object] = s.value > 0
		case "signet_log_used_bytes":
			used[object] = s.value
		case "signet_log_room_bytes":
			room[object] = s.value
		}
	}
	for _, object := range sortedKeys(behind) {
		if disagrees[object] {
			f.add(idLog, object, Critical, "signet log verify; docs/operations.md, When a log does not verify", "the log stands still: the stream is not as it was logged")
			continue
		}
		late := time.Duration(behind[object] * float64(time.Second)).Round(time.Second)
		f.above(idLog, object, behind[object], "s", t.LogBehind, "signet log ls and the health part log say why", "something stored waits for a checkpoint since %s", late)
		if room[object] > 0 {
			f.full(idLogRoom, object, used[object], room[object], t, "raise maxBytes of the stream: an eighth of it is for its log")
		}
	}
}

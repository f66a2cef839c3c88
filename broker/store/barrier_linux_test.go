package store

import "testing"

func TestReportsErrors(t *testing.T) {
	for release, want := range map[string]bool{
		"5.8.0": true, "5.10.0-8-amd64": true, "6.1": true, "6.12-rc1": true, "10.0.1": true,
		"5.7.19": false, "4.19.0": false, "4.4.0": false, "": false, "5": false, "x.y": false,
	} {
		if got := reportsErrors(release); got != want {
			t.Errorf("%q: got %v, want %v", release, got, want)
		}
	}
}

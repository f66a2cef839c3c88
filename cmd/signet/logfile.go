package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/signetbus/signet/signing/keyring"
	"github.com/signetbus/signet/signing/tlog"
)

// logName names a log in a file that may hold those of several tenants.
func logName(o *tlog.Origin) string { return o.Tenant + "/" + o.Stream }

// readCheckpoint reads the last checkpoint of a log in a file, TENANT/STREAM or empty
// where the file has one log only, and verifies it. Of a log that was begun anew it
// takes the last one of the run, if the file has any of that.
func readCheckpoint(a *app, file, of string, run *tlog.Origin, ring *keyring.Ring) (*tlog.Note, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	last, ofRun := map[string]*tlog.Note{}, (*tlog.Note)(nil)
	torn, err := tlog.ScanNotes(f, func(n *tlog.Note) error {
		last[logName(&n.Origin)] = n
		if run != nil && n.Origin.String() == run.String() {
			ofRun = n
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	note, err := chooseCheckpoint(file, of, last)
	if err != nil {
		return nil, err
	}
	if ofRun != nil {
		note = ofRun
	}
	if torn > 0 {
		a.note("%s: %s that no checkpoint can be read from, left out", file, plural(torn, "place"))
	}
	if _, err := note.VerifyAt(ring, time.Now()); err != nil {
		return nil, &exitError{code: exitRefused, err: fmt.Errorf("%s: %w", file, err)}
	}
	return note, nil
}

func chooseCheckpoint(file, of string, last map[string]*tlog.Note) (*tlog.Note, error) {
	names := slices.Sorted(maps.Keys(last))
	switch {
	case len(names) == 0:
		return nil, &usageError{msg: file + " holds no checkpoints", fix: "signet log checkpoint STREAM > FILE"}
	case of == "" && len(names) > 1:
		return nil, &usageError{msg: fmt.Sprintf("%s holds checkpoints of %d logs", file, len(names)), fix: "--log, one of: " + clean(strings.Join(names, ", "))}
	case of == "":
		return last[names[0]], nil
	case last[of] == nil:
		return nil, &usageError{msg: fmt.Sprintf("%s holds no checkpoint of %s, but of: %s", file, clean(of), clean(strings.Join(names, ", ")))}
	}
	return last[of], nil
}

package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing/keyring"
	"github.com/signetbus/signet/signing/tlog"
)

// logName names a log in a file that may hold those of several tenants.
func logName(o *tlog.Origin) string { return o.Tenant + "/" + o.Stream }

// keptLogs are the checkpoints of a file by the name of their log and the origin of their
// run: a sink has the logs of several tenants, and all that were begun anew.
type keptLogs struct {
	file string
	runs map[string]map[string]*keptRun
}

// add takes a checkpoint; of is the log that is asked for, or empty.
func (l *keptLogs) add(line int, n *tlog.Note, of string, ring *keyring.Ring, now time.Time) {
	name, origin := logName(&n.Origin), n.Origin.String()
	if l.runs[name] == nil {
		l.runs[name] = map[string]*keptRun{}
	}
	if of != "" && of != name || of == "" && len(l.names()) > 1 { // what is refused for want of --log need not be verified
		return
	}
	run := l.runs[name][origin]
	if run == nil {
		run = &keptRun{file: l.file, origin: n.Origin, every: 1}
		l.runs[name][origin] = run
	}
	run.add(line, n, ring, now)
}

// names are the logs of the file among which one has to choose.
func (l *keptLogs) names() []string {
	names := slices.Sorted(maps.Keys(l.runs))
	if heads := wire.BrokerAccount + "/" + wire.StreamHeads; len(names) > 1 { // every sink has it, and no tenant asks for it
		names = slices.DeleteFunc(names, func(name string) bool { return name == heads })
	}
	return names
}

// choose returns the run that is asked for, or else the last of the log. head is the
// beginning of the file.
func (l *keptLogs) choose(of string, run *tlog.Origin, head []byte) (*keptRun, error) {
	names := l.names()
	switch {
	case len(names) == 0:
		return nil, noCheckpoints(l.file, head)
	case of == "" && len(names) > 1:
		return nil, &usageError{msg: fmt.Sprintf("%s holds checkpoints of %d logs", l.file, len(names)), fix: "--log, one of: " + clean(strings.Join(names, ", "))}
	case of == "":
		of = names[0]
	case l.runs[of] == nil:
		return nil, &usageError{msg: fmt.Sprintf("%s holds no checkpoint of %s, but of: %s", l.file, clean(of), clean(strings.Join(names, ", ")))}
	}
	if run != nil && l.runs[of][run.String()] != nil {
		return l.runs[of][run.String()], nil
	}
	var last *keptRun
	for _, r := range l.runs[of] {
		if last == nil || cmp.Or(r.origin.Start.Compare(last.origin.Start), strings.Compare(r.origin.Cluster, last.origin.Cluster)) > 0 {
			last = r
		}
	}
	return last, nil
}

// readCheckpoints reads all checkpoints of a log in a file, TENANT/STREAM or empty where the
// file has one log only, verifies each, and compares them with each other. Of a log that was
// begun anew it takes those of the run, if the file has any of that, else of the last one.
func readCheckpoints(ctx context.Context, file, of string, run *tlog.Origin, ring *keyring.Ring) (*keptRun, error) {
	f, err := openKept(ctx, file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	logs, now := keptLogs{file: file, runs: map[string]map[string]*keptRun{}}, time.Now()
	torn, err := tlog.ScanNoteLines(f, func(line int, n *tlog.Note) error {
		logs.add(line, n, of, ring, now)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	k, err := logs.choose(of, run, f.head)
	if err != nil {
		return nil, err
	}
	k.count.Torn = torn
	switch {
	case k.fault != nil:
		return nil, k.fault
	case k.newest == nil:
		return nil, &exitError{code: exitRefused, err: k.why}
	}
	return k, agree(k.marks)
}

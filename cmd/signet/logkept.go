package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/signing/keyring"
	"github.com/signetbus/signet/signing/tlog"
)

const (
	// maxMarks bounds what is held of the checkpoints of one log: a sink has one a minute, so
	// this is two years of them. Of more, every second one is compared on.
	maxMarks = 1 << 20
	// maxCompared bounds the questions to the broker about one file.
	maxCompared = 64
)

// prover gets the hashes from one checkpoint to another: admin.LogAPI.Consistency.
type prover func(ctx context.Context, older, newer string) ([][]byte, error)

// mark is what is compared of every checkpoint of a file, with no broker.
type mark struct {
	size, time int64 // leaves; milliseconds since 1970
	root       tlog.Hash
	line       int
	file       string
}

func (m *mark) String() string {
	if m.line == 0 {
		return fmt.Sprintf("%s (%d leaves at %s)", m.file, m.size, time.UnixMilli(m.time).UTC().Format(time.RFC3339Nano))
	}
	return fmt.Sprintf("%s, line %d (%d leaves at %s)", m.file, m.line, m.size, time.UnixMilli(m.time).UTC().Format(time.RFC3339Nano))
}

// keptRun is what a file has of one run of a log. All of its checkpoints are verified and
// compared with each other; some, spread evenly, are kept to be compared with the log.
type keptRun struct {
	file   string
	origin tlog.Origin
	newest *tlog.Note // the largest, whose key was valid
	marks  []mark
	spread []*tlog.Note
	every  int   // of how many checkpoints spread has one
	fault  error // the first
	why    error // of what counts as worthless
	count  keptCount
}

// keptCount says how much of a file a verdict rests on.
type keptCount struct {
	Read      int    `json:"read"`                // checkpoints of the log, each verified and compared with the others
	Compared  int    `json:"compared"`            // with the log, by a proof of the broker
	Worthless int    `json:"worthless,omitempty"` // of a time at which their key was not valid
	Torn      int    `json:"torn,omitempty"`      // places that no checkpoint can be read from
	Unproven  int    `json:"unproven,omitempty"`  // were to be compared, and the broker has no proof any more
	Why       string `json:"unprovenWhy,omitempty"`
}

func (c *keptCount) String() string {
	s := fmt.Sprintf("%s read, each verified and held against the others; %d compared with the log", plural(c.Read, "checkpoint"), c.Compared)
	if c.Unproven > 0 {
		s += fmt.Sprintf("; %d NOT compared, the broker has no proof for them: %s", c.Unproven, c.Why)
	}
	if c.Worthless > 0 {
		s += fmt.Sprintf("; %d left out, their key was not valid at their time", c.Worthless)
	}
	if c.Torn > 0 {
		s += fmt.Sprintf("; %s left out, no checkpoint can be read from there", plural(c.Torn, "place"))
	}
	return s
}

// add takes the next checkpoint. Several nodes may append to one sink, and each does once a
// minute: the order of the lines says nothing.
func (k *keptRun) add(line int, n *tlog.Note, ring *keyring.Ring, now time.Time) {
	if k.fault != nil {
		return
	}
	k.count.Read++
	switch _, err := n.VerifyAt(ring, now); {
	case errors.Is(err, tlog.ErrKeyNotValid): // as after a revocation: it proves nothing, and accuses nobody
		k.count.Worthless++
		k.why = fmt.Errorf("%s, line %d: %w", k.file, line, err)
		return
	case err != nil:
		k.fault = &exitError{code: exitRefused, err: fmt.Errorf("%s, line %d: %w", k.file, line, err)}
		return
	}
	if k.newest != nil && k.newest.First != n.First {
		k.fault = forked(fmt.Sprintf("%s, line %d: the first sequence is %d, in other checkpoints %d", k.file, line, n.First, k.newest.First))
		return
	}
	if k.newest == nil || n.Size > k.newest.Size || n.Size == k.newest.Size && n.Time.After(k.newest.Time) {
		k.newest = n
	}
	if (k.count.Read-k.count.Worthless-1)%k.every == 0 {
		if k.spread = append(k.spread, n); len(k.spread) == maxCompared {
			k.spread, k.every = everySecond(k.spread), 2*k.every
		}
	}
	k.marks = append(k.marks, mark{size: n.Size, time: n.Time.UnixMilli(), root: n.Root, line: line, file: k.file})
	if len(k.marks) == maxMarks {
		k.fault = agree(k.marks)
		k.marks = everySecond(k.marks)
	}
}

func everySecond[T any](all []T) []T {
	for i := 0; 2*i < len(all); i++ {
		all[i] = all[2*i]
	}
	clear(all[(len(all)+1)/2:])
	return all[:(len(all)+1)/2]
}

func forked(what string) error {
	return &exitError{code: exitRefused, err: fmt.Errorf("NOT CONSISTENT: %w: %s", tlog.ErrForked, what)}
}

// agree checks what can be checked without the log, and sorts marks: no two of one size have
// different roots, and none is larger and of an earlier time than another.
func agree(marks []mark) error {
	slices.SortFunc(marks, func(a, b mark) int {
		return cmp.Or(cmp.Compare(a.size, b.size), cmp.Compare(a.time, b.time), cmp.Compare(a.line, b.line))
	})
	for i := 1; i < len(marks); i++ {
		a, b := &marks[i-1], &marks[i]
		switch {
		case a.size == b.size && a.root != b.root:
			return forked(fmt.Sprintf("%s and %s have different roots", a, b))
		case a.time > b.time:
			return forked(fmt.Sprintf("%s is smaller than %s and of a later time", a, b))
		}
	}
	return nil
}

// held compares checkpoints of k with newest, a later one of the same log: the largest, and
// others spread over the file. Tiles that older ones need may have made way; that is said.
func (k *keptRun) held(ctx context.Context, prove prover, newest *tlog.Note) error {
	if k.origin.String() == newest.Origin.String() {
		last := mark{size: newest.Size, time: newest.Time.UnixMilli(), root: newest.Root, file: "the last checkpoint of the broker"}
		if err := agree(append(slices.Clone(k.marks), last)); err != nil {
			return err
		}
	}
	return k.consistent(ctx, prove, newest)
}

func (k *keptRun) consistent(ctx context.Context, prove prover, newest *tlog.Note) error {
	all := append(slices.Clone(k.spread), k.newest)
	slices.SortFunc(all, func(a, b *tlog.Note) int { return cmp.Compare(a.Size, b.Size) })
	all = slices.CompactFunc(all, func(a, b *tlog.Note) bool { return a.Size == b.Size })
	for _, n := range all {
		err := consistent(ctx, prove, n, newest)
		if errors.Is(err, client.ErrNotFound) && n.Size < k.newest.Size {
			k.count.Unproven++
			k.count.Why = reason(err)
			continue
		}
		if err != nil {
			return fmt.Errorf("%s, the checkpoint of %s: %w", k.file, n.Time.Format(time.RFC3339), err)
		}
		k.count.Compared++
	}
	return nil
}

// inOrder compares two files with no broker. Where time and size both say that they were
// given in the wrong order nobody is accused: it was mistyped.
func inOrder(older, newer *keptRun) error {
	if older.origin.String() != newer.origin.String() {
		return nil // which consistent says
	}
	if err := agree(slices.Concat(older.marks, newer.marks)); err != nil {
		return err
	}
	o, n := older.newest, newer.newest
	if o.Size <= n.Size || !o.Time.After(n.Time) {
		return nil
	}
	return &usageError{
		msg: fmt.Sprintf("the files are in the wrong order: %s has %d leaves at %s, %s %d at %s", clean(older.file), o.Size, o.Time.Format(time.RFC3339), clean(newer.file), n.Size, n.Time.Format(time.RFC3339)),
		fix: fmt.Sprintf("signet log consistency %s %s", clean(newer.file), clean(older.file)),
	}
}

// compareKept is log consistency for two files that are in order.
func compareKept(ctx context.Context, a *app, prove prover, older, newer *keptRun) error {
	last := newer.newest
	for _, k := range []*keptRun{older, newer} {
		if err := k.consistent(ctx, prove, last); err != nil {
			return err
		}
	}
	if a.jsonOut() {
		return a.printJSON(map[string]any{
			"consistent": true, "origin": last.Origin.String(), "old": older.newest.Size, "new": last.Size, "oldFile": older.count, "newFile": newer.count,
		})
	}
	fmt.Fprintf(a.stdout, "CONSISTENT: the log of %s grew from %d to %d leaves and nothing else\n", last.Origin.Stream, older.newest.Size, last.Size)
	facts(a.stdout, "  ", older.file, older.count.String(), newer.file, newer.count.String())
	return nil
}

// consistent proves that newer only appends to older.
func consistent(ctx context.Context, prove prover, older, newer *tlog.Note) error {
	var proof []tlog.Hash
	if older.Origin.String() == newer.Origin.String() && older.Size < newer.Size {
		hashes, err := prove(ctx, string(older.Bytes()), string(newer.Bytes()))
		if err != nil {
			return err
		}
		for _, h := range hashes {
			if len(h) != len(tlog.Hash{}) {
				return &exitError{code: exitRefused, err: errors.New("the broker's proof is malformed")}
			}
			proof = append(proof, tlog.Hash(h))
		}
	}
	err := tlog.CheckConsistency(&older.Checkpoint, &newer.Checkpoint, proof)
	if errors.Is(err, tlog.ErrOtherLog) {
		err = fmt.Errorf("%w; a log that an operator began anew (signet log restart) is another one: its record in the audit trail says why", err)
	}
	if err != nil {
		return &exitError{code: exitRefused, err: fmt.Errorf("NOT CONSISTENT: %w", err)}
	}
	return nil
}

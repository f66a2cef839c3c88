package tlog

import (
	"bufio"
	"errors"
	"io"
	"strings"

	"github.com/signetbus/signet/signing"
)

// noteLines is the number of lines of a signed checkpoint.
const noteLines = 8

// ScanNotes reads checkpoints one after the other, as a sink has them, and hands each
// out; none is verified. It holds one at a time, so the length of r does not matter. What
// is no checkpoint is skipped up to the next one, and each such place counted: a machine
// that stopped in the middle of a write leaves a part of one.
//
// Errors: those of r and of each.
func ScanNotes(r io.Reader, each func(*Note) error) (torn int, err error) {
	return ScanNoteLines(r, func(_ int, n *Note) error { return each(n) })
}

// ScanNoteLines is ScanNotes for who has to say where in r a checkpoint stands: each also
// gets the number of its first line, from 1 on.
//
// Errors: those of r and of each.
func ScanNoteLines(r io.Reader, each func(line int, n *Note) error) (torn int, err error) {
	in, s := bufio.NewReaderSize(r, MaxCheckpointBytes), noteScan{}
	for number := 1; ; {
		line, err := in.ReadSlice('\n')
		end := errors.Is(err, io.EOF)
		if err != nil && !end && !errors.Is(err, bufio.ErrBufferFull) {
			return s.torn, err
		}
		if n := s.take(line); n != nil {
			if err := each(number-noteLines+1, n); err != nil {
				return s.torn, err
			}
		}
		if err == nil { // else it is a part of a long line
			number++
		}
		if end {
			s.drop(len(s.text) > 0)
			return s.torn, nil
		}
	}
}

// noteScan gathers the lines of one checkpoint.
type noteScan struct {
	text  []byte
	lines int
	torn  int
	lost  bool // what came last was no checkpoint
}

// drop gives up what was gathered.
func (s *noteScan) drop(bad bool) {
	if bad && !s.lost {
		s.torn++
		s.lost = true
	}
	s.text, s.lines = s.text[:0], 0
}

func (s *noteScan) take(line []byte) *Note {
	switch {
	case strings.HasPrefix(string(line), signing.LogOriginPrefix):
		s.drop(s.lines > 0)
	case s.lines == 0:
		s.drop(len(strings.TrimSpace(string(line))) > 0)
		return nil
	}
	s.text = append(s.text, line...)
	if s.lines++; s.lines < noteLines {
		return nil
	}
	n, err := ParseNote(s.text)
	s.drop(err != nil)
	if err != nil {
		return nil
	}
	s.lost = false
	return n
}

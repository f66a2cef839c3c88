package policy

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// Position is a place in a policy file. Line and Column count from 1; a zero Line
// means the whole file.
type Position struct {
	File   string
	Line   int
	Column int
}

// String returns "file:line:column", without what is zero.
func (p Position) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// Fault is one thing that is wrong with a policy.
type Fault struct {
	At  Position
	Msg string
}

// Error returns "file:line:column: message".
func (f *Fault) Error() string { return f.At.String() + ": " + f.Msg }

// maxFaults bounds what one bundle can make us print.
const maxFaults = 100

// ErrTooManyFaults stands at the end of a list of faults that was cut.
var ErrTooManyFaults = errors.New("policy: more than 100 faults, the rest is not listed")

// Faults returns the faults that err joins, in order of file and line; nil if err
// came from elsewhere.
func Faults(err error) []*Fault {
	var one *Fault
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var list []*Fault
		for _, e := range joined.Unwrap() {
			if errors.As(e, &one) {
				list = append(list, one)
			}
		}
		return list
	}
	if errors.As(err, &one) {
		return []*Fault{one}
	}
	return nil
}

// faults collects what is wrong.
type faults struct{ list []*Fault }

func (f *faults) add(at Position, format string, args ...any) {
	f.list = append(f.list, &Fault{At: at, Msg: fmt.Sprintf(format, args...)})
}

// err joins the faults, sorted by place, without repetitions; nil if there are none.
func (f *faults) err() error {
	slices.SortStableFunc(f.list, func(a, b *Fault) int {
		return cmp.Or(cmp.Compare(a.At.File, b.At.File), cmp.Compare(a.At.Line, b.At.Line),
			cmp.Compare(a.At.Column, b.At.Column))
	})
	var list []error
	for i, one := range f.list {
		if i > 0 && *one == *f.list[i-1] {
			continue
		}
		if len(list) == maxFaults {
			return errors.Join(append(list, ErrTooManyFaults)...)
		}
		list = append(list, one)
	}
	return errors.Join(list...)
}

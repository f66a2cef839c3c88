package attack

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/signetbus/signet/internal/wire"
)

// Verdict is what came of an attack.
type Verdict string

// The verdicts. They are an interface: reports have them.
const (
	Refused       Verdict = "refused"
	Succeeded     Verdict = "SUCCEEDED"
	NotApplicable Verdict = "not applicable" // what it attacks is not there, and Detail says why
	NotJudged     Verdict = "not judged"     // it could not be carried out, or its outcome not be seen
)

// Attack is one entry of the list. Number is an interface: none is ever given to another
// attack.
type Attack struct {
	Number  int    `json:"number"`
	Name    string `json:"name"`
	Control string `json:"control"` // what has to stop it
	Row     string `json:"row"`     // section of docs/threat-model.md, and the row where it has a number
	Does    string `json:"does"`    // how, and why it does no harm where it succeeds
	// Plain says why it cannot succeed against plain nats-server; empty: it must.
	Plain string `json:"plain,omitempty"`

	long bool // takes long and little: it runs beside the others
	run  func(ctx context.Context, r *Rig) (Outcome, error)
}

// Outcome is what came of one attack.
type Outcome struct {
	Verdict Verdict `json:"verdict"`
	Code    string  `json:"code,omitempty"`   // of the refusal: a code of docs/spec/errors.md, or the words of the -ERR
	Detail  string  `json:"detail,omitempty"` // one line; never a payload of others
}

// Result is an attack with what came of it.
type Result struct {
	Attack
	Outcome
	Milliseconds int64 `json:"milliseconds"`
}

// limit bounds one try of an attack.
const limit = 30 * time.Second

// An attack that could not be judged is tried again: a stream may be without a leader for a
// moment. What was judged stays.
const (
	tries = 3
	again = 2 * time.Second // between two
	weary = 5               // not judged in a row: the broker is not well, and nothing is tried again
)

// List returns all attacks by number. The caller owns the slice.
func List() []Attack {
	all := slices.Concat(connecting, publishing, headers, events, deputies, reading, consuming, services, administration)
	slices.SortFunc(all, func(a, b Attack) int { return a.Number - b.Number })
	return all
}

// Pick returns the attacks with these numbers; all, where there are none.
func Pick(numbers []int) ([]Attack, error) {
	all := List()
	if len(numbers) == 0 {
		return all, nil
	}
	var out []Attack
	for _, n := range numbers {
		i := slices.IndexFunc(all, func(a Attack) bool { return a.Number == n })
		if i < 0 {
			return nil, fmt.Errorf("attack: there is no attack %d", n)
		}
		if !slices.ContainsFunc(out, func(a Attack) bool { return a.Number == n }) {
			out = append(out, all[i])
		}
	}
	slices.SortFunc(out, func(a, b Attack) int { return a.Number - b.Number })
	return out, nil
}

// Run carries the attacks out, one after the other; those that only wait run beside them.
// It tells each result as it comes, and returns all by number. When ctx ends the attacks
// that are left are not judged. It returns when all its goroutines are gone.
func Run(ctx context.Context, r *Rig, attacks []Attack, tell func(Result)) []Result {
	var (
		mu  sync.Mutex
		out []Result
		wg  sync.WaitGroup
	)
	do := func(r *Rig, a Attack, n int) Verdict {
		result := carryOut(ctx, r, a, n)
		mu.Lock()
		defer mu.Unlock()
		out = append(out, result)
		if tell != nil {
			tell(result)
		}
		return result.Verdict
	}
	for _, a := range attacks {
		if a.long {
			beside := *r
			wg.Go(func() { do(&beside, a, tries) })
		}
	}
	n := tries
	for row := 0; len(attacks) > 0; attacks = attacks[1:] {
		if attacks[0].long {
			continue
		}
		if row++; do(r, attacks[0], n) != NotJudged {
			row = 0
		}
		if row >= weary {
			n = 1
		}
	}
	wg.Wait()
	slices.SortFunc(out, func(a, b Result) int { return a.Number - b.Number })
	return out
}

func carryOut(ctx context.Context, r *Rig, a Attack, most int) Result {
	begun := time.Now()
	res := once(ctx, r, a)
	for n := 1; n < most && res.Verdict == NotJudged && ctx.Err() == nil; n++ {
		pause := time.NewTimer(again)
		select {
		case <-pause.C:
			res = once(ctx, r, a)
		case <-ctx.Done():
			pause.Stop()
		}
	}
	res.Milliseconds = time.Since(begun).Milliseconds()
	return res
}

func once(ctx context.Context, r *Rig, a Attack) Result {
	own, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	res := Result{Attack: a}
	var err error
	if err = own.Err(); err == nil {
		res.Outcome, err = a.run(own, r)
	}
	if err != nil {
		res.Outcome = Outcome{Verdict: NotJudged, Code: codeOf(err), Detail: err.Error()}
	}
	if res.Verdict == "" {
		res.Outcome = Outcome{Verdict: NotJudged, Detail: "the attack came to no end"}
	}
	return res
}

// Worst is the verdict on a run: Succeeded if one attack did, else NotJudged if one was
// not or none was refused, else Refused.
func Worst(results []Result) Verdict {
	refused, judged := false, true
	for i := range results {
		switch results[i].Verdict {
		case Refused:
			refused = true
		case NotApplicable:
		case Succeeded:
			return Succeeded
		default:
			judged = false
		}
	}
	if refused && judged {
		return Refused
	}
	return NotJudged
}

func refused(code, format string, args ...any) (Outcome, error) {
	return Outcome{Verdict: Refused, Code: code, Detail: fmt.Sprintf(format, args...)}, nil
}

func succeeded(format string, args ...any) (Outcome, error) {
	return Outcome{Verdict: Succeeded, Detail: fmt.Sprintf(format, args...)}, nil
}

func notApplicable(why string) (Outcome, error) {
	return Outcome{Verdict: NotApplicable, Detail: why}, nil
}

// otherRefusal: the attack was refused, and not by the control that it is on.
type otherRefusal struct {
	code, text string
	want       []wire.Code
}

func (e *otherRefusal) Error() string {
	return fmt.Sprintf("refused with %s (%s), which is not the control that it tests (%v)", e.code, e.text, e.want)
}

func codeOf(err error) string {
	var o *otherRefusal
	if errors.As(err, &o) {
		return o.code
	}
	return ""
}

// judge makes an outcome of a refusal, if its code is one of those of the control.
func judge(code int, text string, want []wire.Code) (Outcome, error) {
	if slices.Contains(want, wire.Code(code)) {
		return refused(strconv.Itoa(code), "%s", text)
	}
	return Outcome{}, &otherRefusal{code: strconv.Itoa(code), text: text, want: want}
}

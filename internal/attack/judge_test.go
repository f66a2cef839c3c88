package attack

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/signetbus/signet/internal/wire"
)

// outcome is what a detector makes of an observation.
func outcome(o Outcome, err error) Verdict {
	if err != nil {
		return NotJudged
	}
	return o.Verdict
}

// TestJudges: the detectors, given made-up observations: what came through is a success
// whatever was said, what was refused by the control is refused, and everything else, other
// refusals included, is not judged.
func TestJudges(t *testing.T) {
	want := codes(wire.CodePublishDenied)
	denied := `Permissions Violation for Publish to "x": 40101 PublishDenied: no`
	other := `Permissions Violation for Publish to "x": 40900 Unavailable: no`
	through := &frame{verb: "MSG", subject: "attack.victim.hidden"}
	for name, c := range map[string]struct {
		got  Verdict
		want Verdict
	}{
		"hidden command, came through":       {outcome(judgeHidden([]string{"x", "x", "x", "x"}, through)), Succeeded},
		"hidden command, all ended":          {outcome(judgeHidden([]string{"x", "x", "x", "x"}, nil)), Refused},
		"hidden command, one silent":         {outcome(judgeHidden([]string{"x", "x", "x"}, nil)), NotJudged},
		"told, came through all the same":    {outcome(judgeTold([]string{denied}, 1, through, want)), Succeeded},
		"told by the control":                {outcome(judgeTold([]string{denied}, 1, nil, want)), Refused},
		"told by something else":             {outcome(judgeTold([]string{denied, other}, 2, nil, want)), NotJudged},
		"told one of two":                    {outcome(judgeTold([]string{denied}, 2, nil, want)), NotJudged},
		"told without a code":                {outcome(judgeTold([]string{"Stale Connection"}, 1, nil, want)), NotJudged},
		"answer: refused":                    {outcome(judgeAnswer(&answer{code: 40101}, want, stored)), Refused},
		"answer: refused by something else":  {outcome(judgeAnswer(&answer{code: 40500}, want, stored)), NotJudged},
		"answer: stored":                     {outcome(judgeAnswer(&answer{stream: "S", sequence: 1}, want, stored)), Succeeded},
		"answer: nobody there":               {outcome(judgeAnswer(&answer{noticed: true}, want, answered)), NotJudged},
		"answer: an error of the server's":   {outcome(judgeAnswer(&answer{api: 10076}, want, stored)), NotJudged},
		"answer: the server looked":          {outcome(judgeAnswer(&answer{api: 10059}, want, reached)), Succeeded},
		"document: denied":                   {outcome(judgeBrought(&answer{code: 40111})), Refused},
		"document: looked at":                {outcome(judgeBrought(&answer{code: 40205})), Succeeded},
		"document: taken":                    {outcome(judgeBrought(&answer{})), Succeeded},
		"document: broker away":              {outcome(judgeBrought(&answer{code: 40900})), NotJudged},
		"rate: all passed":                   {outcome(judgeRate(12, 0, 3)), Succeeded},
		"rate: held":                         {outcome(judgeRate(2, 10, 3)), Refused},
		"rate: too slow to tell":             {outcome(judgeRate(12, 0, 20)), NotJudged},
		"door: a word":                       {outcome(turnedAway(&errRefused{said: "Authorization Violation"}, unauthorised)), Refused},
		"door: too busy":                     {outcome(turnedAway(&errRefused{said: "maximum connections exceeded"}, unauthorised)), NotJudged},
		"door: gone":                         {outcome(turnedAway(errors.New("connection reset"), unauthorised)), NotJudged},
		"run: nothing":                       {Worst(nil), NotJudged},
		"run: nothing that applies":          {Worst([]Result{{Outcome: Outcome{Verdict: NotApplicable}}}), NotJudged},
		"run: one succeeded, one not judged": {Worst([]Result{{Outcome: Outcome{Verdict: NotJudged}}, {Outcome: Outcome{Verdict: Succeeded}}}), Succeeded},
		"run: one without a verdict":         {Worst([]Result{{Outcome: Outcome{Verdict: Refused}}, {}}), NotJudged},
		"run: not applicable is no fault":    {Worst([]Result{{Outcome: Outcome{Verdict: Refused}}, {Outcome: Outcome{Verdict: NotApplicable}}}), Refused},
	} {
		if c.got != c.want {
			t.Errorf("%s: %s, want %s", name, c.got, c.want)
		}
	}
}

// TestRunFailsClosed: an attack that fails, that says nothing, or that comes after the end
// of the run is not judged.
func TestRunFailsClosed(t *testing.T) { synctest.Test(t, runFailsClosed) }

func runFailsClosed(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	attacks := []Attack{
		{Number: 1, run: func(context.Context, *Rig) (Outcome, error) { return refused("1", "x") }},
		{Number: 2, run: func(context.Context, *Rig) (Outcome, error) { return Outcome{}, errors.New("broken") }},
		{Number: 3, run: func(context.Context, *Rig) (Outcome, error) { cancel(); return Outcome{}, nil }},
		{Number: 4, run: func(context.Context, *Rig) (Outcome, error) { return refused("1", "x") }},
	}
	told, tried := 0, 0
	attacks = append([]Attack{{Number: 0, run: func(context.Context, *Rig) (Outcome, error) {
		if tried++; tried < tries {
			return Outcome{}, errors.New("no leader")
		}
		return refused("1", "x")
	}}}, attacks...)
	results := Run(ctx, &Rig{}, attacks, func(Result) { told++ })
	for i, want := range []Verdict{Refused, Refused, NotJudged, NotJudged, NotJudged} {
		if results[i].Verdict != want {
			t.Errorf("attack %d: %s %s, want %s", i, results[i].Verdict, results[i].Detail, want)
		}
	}
	if told != 5 || tried != tries || Worst(results) != NotJudged {
		t.Errorf("told %d, worst %s", told, Worst(results))
	}
}

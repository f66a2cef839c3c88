package schedule

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/signetbus/signet/internal/adminapi"
)

// ErrSpec says that a text is no time specification, and why.
var ErrSpec = errors.New("schedule: not a time specification")

// Spec says when a schedule fires: "@every" and a duration, or a cron expression, in UTC.
type Spec struct {
	every time.Duration // 0: by fields
	field [fields]bits
	text  string
}

// The fields of a cron expression, in their order.
const (
	second = iota
	minute
	hour
	day
	month
	weekday
	fields
)

// bits has one bit for each value of a field. star is set where the field is *, which is of
// consequence for the two that say which day.
type bits uint64

const star bits = 1 << 63

// ranges are the least and the greatest value of each field.
var ranges = [fields][2]int{{0, 59}, {0, 59}, {0, 23}, {1, 31}, {1, 12}, {0, 6}}

var (
	fieldNames = [fields]string{"second", "minute", "hour", "day of the month", "month", "day of the week"}
	monthNames = []string{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}
	dayNames   = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}
	shortcuts  = map[string]string{
		"@yearly": "0 0 0 1 1 *", "@annually": "0 0 0 1 1 *", "@monthly": "0 0 0 1 * *", "@weekly": "0 0 0 * * 0",
		"@daily": "0 0 0 * * *", "@midnight": "0 0 0 * * *", "@hourly": "0 0 * * * *",
	}
)

// ParseSpec reads a time specification: "@every 90s", in whole seconds, 1 s to 366 days;
// "@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually"; or five or
// six fields with one space between them: second (0 without it), minute, hour, day of the
// month, month, day of the week. A field is *, or a list with commas of values and ranges (1-5),
// each of them with a step (*/10, 0-30/5) or without; months and days of the week have
// names of three letters, too, and Sunday is 0.
//
// It takes less than nats-server does, and nothing that nats-server reads otherwise.
//
// Errors: ErrSpec.
func ParseSpec(text string) (Spec, error) {
	if len(text) > adminapi.MaxScheduleSpecBytes {
		return Spec{}, fmt.Errorf("%w: over %d bytes", ErrSpec, adminapi.MaxScheduleSpecBytes)
	}
	if rest, ok := strings.CutPrefix(text, "@every "); ok {
		return parseEvery(rest)
	}
	if long, ok := shortcuts[text]; ok {
		text = long
	}
	words := strings.Split(text, " ")
	if len(words) == fields-1 {
		words = append([]string{"0"}, words...)
	}
	if len(words) != fields {
		return Spec{}, fmt.Errorf("%w: %q: want @every and a duration, @hourly, @daily, @weekly, @monthly, @yearly, or the 5 or 6 fields of cron with one space between them", ErrSpec, text)
	}
	s := Spec{text: strings.Join(words, " ")}
	if len(s.text) > adminapi.MaxScheduleSpecBytes { // with the second
		return Spec{}, fmt.Errorf("%w: over %d bytes", ErrSpec, adminapi.MaxScheduleSpecBytes)
	}
	for i, word := range words {
		var err error
		if s.field[i], err = parseField(i, word); err != nil {
			return Spec{}, err
		}
	}
	if s.Next(time.Unix(0, 0)).IsZero() {
		return Spec{}, fmt.Errorf("%w: %q names a day that never comes", ErrSpec, text)
	}
	return s, nil
}

func parseEvery(text string) (Spec, error) {
	d, err := time.ParseDuration(text)
	switch {
	case err != nil || text[0] < '0' || text[0] > '9':
		return Spec{}, fmt.Errorf("%w: @every %q: want a duration such as 90s, 15m or 1h30m", ErrSpec, text)
	case d < adminapi.MinScheduleInterval:
		return Spec{}, fmt.Errorf("%w: @every %s is too often: the least interval is %s", ErrSpec, text, adminapi.MinScheduleInterval)
	case d > adminapi.MaxScheduleIntervalHours*time.Hour:
		return Spec{}, fmt.Errorf("%w: @every %s: the longest interval is %d hours", ErrSpec, text, adminapi.MaxScheduleIntervalHours)
	case d%time.Second != 0:
		return Spec{}, fmt.Errorf("%w: @every %s: want whole seconds", ErrSpec, text)
	}
	return Spec{every: d, text: "@every " + d.String()}, nil
}

// parseField reads one field, a list.
func parseField(i int, text string) (bits, error) {
	var out bits
	for _, item := range strings.Split(text, ",") {
		b, err := parseItem(i, item)
		if err != nil {
			return 0, err
		}
		out |= b
	}
	return out, nil
}

func parseItem(i int, text string) (bits, error) {
	fault := func(why string) (bits, error) {
		return 0, fmt.Errorf("%w: %s %q: %s", ErrSpec, fieldNames[i], text, why)
	}
	of, stepText, stepped := strings.Cut(text, "/")
	from, to := ranges[i][0], ranges[i][1]
	step, extra := 1, bits(0)
	if of == "*" {
		extra = star
	} else {
		low, high, ranged := strings.Cut(of, "-")
		var ok bool
		if from, ok = value(i, low); !ok {
			return fault(fmt.Sprintf("want %d to %d, or *", ranges[i][0], ranges[i][1]))
		}
		switch {
		case ranged:
			if to, ok = value(i, high); !ok || to < from {
				return fault("a range goes up, and stays within the field")
			}
		case stepped:
			return fault("a step is for * or a range")
		default:
			to = from
		}
	}
	if stepped {
		n, ok := number(stepText)
		if !ok || n < 1 || n > ranges[i][1] {
			return fault(fmt.Sprintf("a step is 1 to %d", ranges[i][1]))
		}
		if step = n; step > 1 {
			extra = 0
		}
	}
	out := extra
	for v := from; v <= to; v += step {
		out |= 1 << v
	}
	return out, nil
}

// value reads one value of a field: digits, or a name.
func value(i int, text string) (int, bool) {
	names, first := []string(nil), 0
	switch i {
	case month:
		names, first = monthNames, 1
	case weekday:
		names = dayNames
	}
	for n, name := range names {
		if text == name {
			return n + first, true
		}
	}
	v, ok := number(text)
	return v, ok && v >= ranges[i][0] && v <= ranges[i][1]
}

// number reads one or two digits.
func number(text string) (int, bool) {
	if len(text) < 1 || len(text) > 2 || strings.Trim(text, "0123456789") != "" {
		return 0, false
	}
	v, err := strconv.Atoi(text)
	return v, err == nil
}

// String is the specification as the server reads it.
func (s Spec) String() string { return s.text }

// horizon is how far Next looks: the 29th of February may be eight years away. The server
// looks for five.
const horizon = 5 * 366

// Next is the first moment of a cron expression after t; zero for an interval, whose moments
// the server counts from when it was put, and for a day that does not come in five years.
func (s Spec) Next(t time.Time) time.Time {
	if s.every > 0 {
		return time.Time{}
	}
	t = t.UTC().Truncate(time.Second).Add(time.Second)
	year, mon, dom := t.Date()
	for n := range horizon {
		date := time.Date(year, mon, dom+n, 0, 0, 0, 0, time.UTC)
		if !s.on(date) {
			continue
		}
		if at, ok := s.within(date, t); ok {
			return at
		}
	}
	return time.Time{}
}

// on reports whether the schedule fires on a day. Where both fields say which, one of them
// is enough, as in every cron.
func (s Spec) on(date time.Time) bool {
	if !s.has(month, int(date.Month())) {
		return false
	}
	dom, dow := s.has(day, date.Day()), s.has(weekday, int(date.Weekday()))
	if s.field[day]&star != 0 || s.field[weekday]&star != 0 {
		return dom && dow
	}
	return dom || dow
}

// within is the first moment of a day that is not before t.
func (s Spec) within(date, t time.Time) (time.Time, bool) {
	for h := range 24 {
		if !s.has(hour, h) || date.Add(time.Duration(h+1)*time.Hour).Before(t) {
			continue
		}
		for m := range 60 {
			if !s.has(minute, m) {
				continue
			}
			for sec := range 60 {
				at := date.Add(time.Duration(h)*time.Hour + time.Duration(m)*time.Minute + time.Duration(sec)*time.Second)
				if s.has(second, sec) && !at.Before(t) {
					return at, true
				}
			}
		}
	}
	return time.Time{}, false
}

func (s Spec) has(i, v int) bool { return s.field[i]&(1<<v) != 0 }

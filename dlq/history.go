package dlq

import (
	"strconv"
	"strings"
	"time"
)

// The history of an event before it became a dead letter: when it was stored, when it
// was delivered, how often it was redriven. docs/spec/dlq.md has the format.

func inRange(t time.Time) bool {
	y := t.UTC().Year()
	return y >= 0 && y <= 9999
}

func (r *Record) timesInRange() bool {
	if !inRange(r.Time) || !inRange(r.Stored) {
		return false
	}
	for _, d := range r.Deliveries {
		if !inRange(d.At) || d.Attempt < 1 {
			return false
		}
	}
	return true
}

func (r *Record) encodeHistory(h map[string][]string) {
	if !r.Stored.IsZero() {
		h[HeaderStored] = []string{r.Stored.UTC().Format(time.RFC3339Nano)}
	}
	if r.Redrives != 0 {
		h[HeaderRedrives] = []string{strconv.Itoa(r.Redrives)}
	}
	if list := kept(r.Deliveries); len(list) > 0 {
		words := make([]string, len(list))
		for i, d := range list {
			words[i] = strconv.Itoa(d.Attempt) + "@" + d.At.UTC().Format(time.RFC3339Nano)
		}
		h[HeaderDeliveries] = []string{strings.Join(words, ",")}
	}
}

// kept is the first and the latest of list, MaxDeliveries in all.
func kept(list []Delivery) []Delivery {
	if len(list) <= MaxDeliveries {
		return list
	}
	return append(list[:1:1], list[len(list)-MaxDeliveries+1:]...)
}

// history reads what encodeHistory wrote.
func (d *decoder) history(r *Record) {
	r.Redrives = int(d.number(HeaderRedrives, 1<<31-1))
	if v := d.text(HeaderStored); v != "" {
		r.Stored = d.time(HeaderStored, v)
	}
	v := d.text(HeaderDeliveries)
	for more := v != ""; more; {
		var word string
		word, v, more = strings.Cut(v, ",")
		number, at, ok := strings.Cut(word, "@")
		n, err := strconv.ParseUint(number, 10, 31)
		if !ok || err != nil || n == 0 || len(r.Deliveries) == MaxDeliveries {
			d.fail(HeaderDeliveries)
			return
		}
		r.Deliveries = append(r.Deliveries, Delivery{Attempt: int(n), At: d.time(HeaderDeliveries, at)})
	}
}

func (d *decoder) time(name, v string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, v)
	if t = t.UTC(); err != nil || t.IsZero() || !inRange(t) {
		d.fail(name)
	}
	return t
}

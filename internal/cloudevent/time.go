package cloudevent

import "time"

// ParseTime reads an RFC 3339 time as CloudEvents writes it: upper-case T and Z,
// a fraction of 1 to 9 digits if any, no leap second, and an instant whose UTC
// year is 1 to 9999. It reports whether b is one, and does not allocate. The
// result is in UTC.
func ParseTime(b []byte) (time.Time, bool) {
	const layout = "2006-01-02T15:04:05"
	if len(b) < len(layout)+1 || b[4] != '-' || b[7] != '-' || b[10] != 'T' || b[13] != ':' || b[16] != ':' {
		return time.Time{}, false
	}
	year := 100*digits2(b[0:]) + digits2(b[2:])
	month, day := digits2(b[5:]), digits2(b[8:])
	hour, minute, sec := digits2(b[11:]), digits2(b[14:]), digits2(b[17:])
	if digits2(b[0:]) < 0 || digits2(b[2:]) < 0 ||
		month < 1 || month > 12 || day < 1 || day > daysIn(year, month) ||
		hour < 0 || hour > 23 || minute < 0 || minute > 59 || sec < 0 || sec > 59 {
		return time.Time{}, false
	}
	rest := b[len(layout):]
	nanos := 0
	if rest[0] == '.' {
		n := 1
		for unit := 100_000_000; n < len(rest) && rest[n] >= '0' && rest[n] <= '9'; n++ {
			nanos += int(rest[n]-'0') * unit
			unit /= 10
		}
		if n == 1 || n > 10 {
			return time.Time{}, false
		}
		rest = rest[n:]
	}
	offset, ok := zone(rest)
	if !ok {
		return time.Time{}, false
	}
	t := time.Date(year, time.Month(month), day, hour, minute, sec, nanos, time.UTC).Add(-offset)
	return t, t.Year() >= 1 && t.Year() <= 9999
}

func zone(b []byte) (time.Duration, bool) {
	if len(b) == 1 && b[0] == 'Z' {
		return 0, true
	}
	if len(b) != 6 || b[0] != '+' && b[0] != '-' || b[3] != ':' {
		return 0, false
	}
	h, m := digits2(b[1:]), digits2(b[4:])
	if h < 0 || h > 23 || m < 0 || m > 59 {
		return 0, false
	}
	d := time.Duration(h)*time.Hour + time.Duration(m)*time.Minute
	if b[0] == '-' {
		d = -d
	}
	return d, true
}

// digits2 reads two digits, -1 if they are not.
func digits2(b []byte) int {
	if b[0] < '0' || b[0] > '9' || b[1] < '0' || b[1] > '9' {
		return -1
	}
	return int(b[0]-'0')*10 + int(b[1]-'0')
}

func daysIn(year, month int) int {
	switch month {
	case 4, 6, 9, 11:
		return 30
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return 31
}

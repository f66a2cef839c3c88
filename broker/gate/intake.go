package gate

import (
	"time"
)

// intake turns what the client sends into operations. Only the reader's goroutine
// uses it: the handshake for CONNECT, the reader after it.
type intake struct {
	link  *link // to the client
	tap   *tap  // under link; nil without TLS
	bytes *counter
	limit time.Duration // for one message once its first byte has come
	in    window
	parse parser

	most      int       // bytes that a fill reads beyond what the operation at hand needs; 0: as many as there is room for
	taken     int       // bytes that next took since the last fill
	armed     time.Time // when the read deadline was set; zero: none is
	armedNeed int       // parse.need at that time
}

// ready reports whether next may find an operation.
func (i *intake) ready() bool {
	n := i.in.w - i.in.r
	return n > 0 && n >= i.parse.need
}

// next takes one operation; false if no whole one is there. The values of cmd are
// views that end with the next fill.
func (i *intake) next(cmd *command) (bool, error) {
	buf := i.in.unread()
	if len(buf) == 0 {
		return false, nil
	}
	n, err := i.parse.next(buf, cmd)
	i.in.r += n
	i.taken += n
	return n > 0, err
}

// fill reads once, and then what is at hand: the more it finds, the fewer signatures
// and writes upstream there are for the same events. It fails only if nothing came.
func (i *intake) fill() error {
	i.taken = 0
	if n, err := i.read(); n == 0 {
		return err
	}
	for i.tap != nil && i.most == 0 && i.in.w < largeBuffer && i.tap.waiting() {
		i.in.grow = true
		if n, _ := i.read(); n == 0 {
			break // TLS keeps the error for the next fill, after what came before it
		}
	}
	return nil
}

func (i *intake) read() (int, error) {
	room := i.in.room(i.parse.need)
	if i.most > 0 {
		room = room[:min(len(room), max(i.most, i.parse.need-(i.in.w-i.in.r)))]
	}
	n, err := i.link.nc.Read(room)
	i.in.filled(n)
	i.bytes.Add(uint64(n))
	return n, err
}

// arm sets the read deadline while a message is incomplete, and takes it away when
// none is. A stream of messages that happen to straddle reads does not pay for a
// new deadline each time: one that is still at least half away is kept, since the
// message before it was completed.
func (i *intake) arm() error {
	if i.in.r == i.in.w {
		if i.armed.IsZero() {
			return nil
		}
		i.armed = time.Time{}
		return i.link.nc.SetReadDeadline(time.Time{})
	}
	same := i.taken == 0 && !i.armed.IsZero()
	if same && i.parse.need == i.armedNeed {
		return nil
	}
	now := time.Now()
	switch {
	case same: // its size is known now
	case !i.armed.IsZero() && now.Sub(i.armed) < i.limit/2 && i.parse.need <= largeBuffer:
		return nil
	default:
		i.armed = now
	}
	i.armedNeed = i.parse.need
	return i.link.nc.SetReadDeadline(i.armed.Add(i.limit + time.Duration(i.parse.need>>16)*time.Second))
}

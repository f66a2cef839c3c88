package dlq

import (
	"bytes"
	"strconv"

	"github.com/signetbus/signet/internal/wire"
)

// redrivePrefix begins the headers that a redrive adds to what it sends again.
const redrivePrefix = wire.PrefixSignet + "Redrive-"

// Redriven is what the headers of a stored event say of where it failed before. Only the
// broker can have written them: admission refuses Signet- headers.
type Redriven struct {
	Count   int    // how often it was redriven; 0: never
	Origin  Origin // where it failed; empty where the event was published anew for all
	Subject string // of the event when it was first stored
}

// SplitRedrive reads the headers of a redrive out of a header block and returns the block
// as it was before it. A block without them comes back as it is. It never fails: a number
// that does not parse, or is negative, is 0.
func SplitRedrive(block []byte) (Redriven, []byte) {
	var r Redriven
	if !bytes.Contains(block, []byte(redrivePrefix)) {
		return r, block
	}
	rest := make([]byte, 0, len(block))
	for len(block) > 0 {
		line := block
		if i := bytes.Index(block, []byte("\r\n")); i >= 0 {
			line = block[:i+2]
		}
		block = block[len(line):]
		name, value, ok := bytes.Cut(line, []byte(":"))
		field, ours := bytes.CutPrefix(name, []byte(redrivePrefix))
		if !ok || !ours {
			rest = append(rest, line...)
			continue
		}
		r.set(string(field), string(bytes.TrimSpace(value)))
	}
	return r, rest
}

func (r *Redriven) set(field, value string) {
	switch field {
	case "Count":
		n, _ := strconv.ParseUint(value, 10, 31)
		r.Count = int(n)
	case "Stream":
		r.Origin.Stream = value
	case "Consumer":
		r.Origin.Consumer = value
	case "Sequence":
		r.Origin.Sequence, _ = strconv.ParseUint(value, 10, 64)
	case "Subject":
		r.Subject = value
	}
}

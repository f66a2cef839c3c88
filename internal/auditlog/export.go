package auditlog

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/signetbus/signet/signing/keyring"
)

const (
	// exportMark is the first member of an export.
	exportMark = "signet-export"
	// exportLogged is the version of an export with logged heads; Version of one without.
	exportLogged = 2
)

// maxExportLine bounds one line: the keyring is the longest.
const maxExportLine = keyring.MaxDocumentBytes + 1

// exportHeader is the first line.
type exportHeader struct {
	Audit  string `json:"audit"`
	V      int    `json:"v"`
	Tenant string `json:"tenant"`
	Root   string `json:"root"` // public key that signed the keyring
}

// ExportWriter writes an export: header, keyring, logged heads, the seals of the nodes,
// batches in the order of the stream, and the seal that closes it.
type ExportWriter struct {
	w   io.Writer
	err error
}

// NewExport begins an export. ring is the signed keyring document, logged are the lines of
// logged heads, with which it is of version 2.
//
// Errors: those of w.
func NewExport(w io.Writer, tenant, root string, ring []byte, logged ...string) (*ExportWriter, error) {
	h := exportHeader{exportMark, Version, tenant, root}
	if len(logged) > 0 {
		h.V = exportLogged
	}
	line, err := compact(h)
	if err != nil {
		return nil, err
	}
	e := &ExportWriter{w: w}
	e.line(line)
	e.line(bytes.TrimSpace(ring))
	for _, line := range logged {
		e.line([]byte(line))
	}
	return e, e.err
}

func (e *ExportWriter) line(b []byte) {
	if e.err == nil {
		_, e.err = e.w.Write(append(bytes.Clone(b), '\n'))
	}
}

// Seal adds what another node signed about how far its chain is. Seals come before the
// batches, and are older than the one that closes the export.
func (e *ExportWriter) Seal(doc []byte) error {
	e.line(doc)
	return e.err
}

// Batch adds a message of the trail as it is stored.
func (e *ExportWriter) Batch(data []byte) error {
	if e.err == nil {
		_, e.err = e.w.Write(data)
	}
	return e.err
}

// Close adds the signed head that closes the export, a seal. It must name every chain
// that is in the export as the newest of its node, and say where it ends.
func (e *ExportWriter) Close(seal []byte) error {
	e.line(seal)
	return e.err
}

// Trust is what an export is verified against.
type Trust struct {
	// Root is the public root key that must have signed the keyring in the export. Required.
	Root string
	// Ring is the keyring in force, verified against Root; nil: that in the export, which does
	// not know what was revoked since. It must be the one in the export or a later one, and
	// takes its place: what a key signed counts as far as this ring says.
	Ring *keyring.Ring
}

// Export is what VerifyExport read.
type Export struct {
	Tenant  string
	Root    string
	Keyring uint64    // version of the keyring that it was judged by
	Expires time.Time // of that keyring; it may be over where it is the one in the export, which is kept for long
	Within  uint64    // version of the keyring in the export
	Closed  time.Time // when the head that closes it says that it was made
	Report  *Report
	version int
}

// VerifyExport reads an export to its end and checks everything: that the keyring in it
// is signed by the root, every chain from its first record, every signed head, and that
// each chain ends where the head that closes the export says; by the keyring of trust, if
// there is one. A closing head of a time at which its key was not valid proves nothing.
// kept are heads that were kept elsewhere. each, if it is not nil, sees every record in
// order. A trail that is not whole, or not proved to its end, is no error: the report says
// so.
//
// Errors: ErrForeign, ErrExport, keyring.ErrRollback for a keyring of trust that is older
// than the one in the export, ErrHead for one of kept; those of r and of each.
func VerifyExport(r io.Reader, trust Trust, kept []Kept, each func(*Record) error) (*Export, error) {
	in := bufio.NewReaderSize(r, 64<<10)
	x, ring, err := openExport(in, trust)
	if err != nil {
		return nil, err
	}
	v := NewVerifier(x.Tenant, ring)
	if err := v.ExpectKept(kept); err != nil {
		return nil, err
	}
	c := closing{v: v, ring: ring, ends: map[ChainID]Position{}, out: x}
	var batch []byte
	if err := takeLogged(in, x, v); err != nil {
		return nil, err
	}
	for n := uint64(1); ; {
		line, err := readLine(in)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if len(batch) == 0 && isEnvelope(line) {
			if err := c.seal(line, n == 1); err != nil {
				return nil, err
			}
			continue
		}
		if err := c.begin(); err != nil {
			return nil, err
		}
		batch = append(append(batch, line...), '\n')
		if len(batch) > MaxBatchBytes {
			return nil, fmt.Errorf("%w: batch %d has no head", ErrExport, n)
		}
		if !isEnvelope(line) {
			continue
		}
		if err := c.batch(n, batch, each); err != nil {
			return nil, err
		}
		n, batch = n+1, batch[:0]
	}
	if len(batch) > 0 || c.last == nil {
		return nil, fmt.Errorf("%w: it is cut off: no head closes it", ErrExport)
	}
	x.Report, err = c.finish()
	return x, err
}

func openExport(in *bufio.Reader, trust Trust) (*Export, *keyring.Ring, error) {
	line, err := readLine(in)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: it is empty or cut off", ErrExport)
	}
	var h exportHeader
	if err := strict(line, &h); err != nil || h.Audit != exportMark {
		return nil, nil, fmt.Errorf("%w: the first line is not that of an export of the audit trail", ErrExport)
	}
	if again, err := compact(h); err != nil || !bytes.Equal(again, line) || h.Tenant == "" {
		return nil, nil, fmt.Errorf("%w: the first line is not in the one encoding", ErrExport)
	}
	if h.V < 1 || h.V > exportLogged {
		return nil, nil, fmt.Errorf("%w: version %d; this program reads 1 to %d", ErrExport, h.V, exportLogged)
	}
	if h.Root != trust.Root {
		return nil, nil, fmt.Errorf("%w: its root key is %.60q, the trusted one is %s", ErrForeign, h.Root, trust.Root)
	}
	doc, err := readLine(in)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: the keyring is missing", ErrExport)
	}
	// The keyring may have expired since, and an old trail is needed all the same.
	ring, err := keyring.Parse(doc, trust.Root, time.Time{})
	if err != nil {
		return nil, nil, fmt.Errorf("%w: its keyring: %w", ErrForeign, err)
	}
	x := &Export{version: h.V, Tenant: h.Tenant, Root: trust.Root, Within: ring.Version()}
	if trust.Ring != nil {
		// An older one would take back revocations that whoever made the export knew of.
		if err := trust.Ring.Replaces(ring); err != nil {
			return nil, nil, fmt.Errorf("the keyring to judge by does not follow the one in the export: %w", err)
		}
		ring = trust.Ring
	}
	x.Keyring, x.Expires = ring.Version(), ring.Expires()
	return x, ring, nil
}

// takeLogged reads the logged heads, which an export of version 2 has behind the keyring.
func takeLogged(in *bufio.Reader, x *Export, v *Verifier) error {
	for n := 0; x.version == exportLogged; n++ {
		if next, err := in.Peek(len(loggedMark)); err != nil || !isLogged(next) {
			if n == 0 {
				return fmt.Errorf("%w: it is of version %d, which has logged heads, and has none", ErrExport, x.version)
			}
			return nil
		}
		if n == maxLogged {
			return fmt.Errorf("%w: more than %d logged heads", ErrExport, maxLogged)
		}
		line, err := readLine(in)
		if err != nil {
			return err
		}
		if err := v.ExpectLogged(line); err != nil {
			return fmt.Errorf("%w: %w", ErrExport, err)
		}
	}
	return nil
}

// readLine reads one line without its end; io.EOF only where nothing is left.
func readLine(in *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		if len(line)+len(part) > maxExportLine {
			return nil, fmt.Errorf("%w: a line has more than %d bytes", ErrExport, maxExportLine)
		}
		line = append(line, part...)
		switch {
		case err == nil:
			return line[:len(line)-1], nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(line) > 0:
			return nil, fmt.Errorf("%w: it is cut off within a line", ErrExport)
		default:
			return nil, err
		}
	}
}

// closing checks an export against the heads of it that are no batch's.
type closing struct {
	v     *Verifier
	ring  *keyring.Ring
	out   *Export
	ends  map[ChainID]Position
	last  []byte // a seal that nothing has followed; the one that closes the export if nothing does
	begun bool   // a batch was there
	seals int    // before the batches
}

// maxSeals bounds the seals before the batches: one for each node.
const maxSeals = MaxHeadChains

// seal takes a head that stands by itself.
func (c *closing) seal(doc []byte, early bool) error {
	switch {
	case c.last == nil:
	case !early:
		return fmt.Errorf("%w: something follows the head that closes it", ErrExport)
	default:
		if err := c.nodes(); err != nil {
			return err
		}
	}
	c.last = doc
	return nil
}

// begin is before a line of a batch: what stood before it was the word of a node.
func (c *closing) begin() error {
	if c.last == nil {
		return nil
	}
	if c.begun {
		return fmt.Errorf("%w: something follows the head that closes it", ErrExport)
	}
	return c.nodes()
}

// nodes takes what a node said of its chain. One whose key was not valid said nothing.
func (c *closing) nodes() error {
	if c.seals++; c.seals > maxSeals {
		return fmt.Errorf("%w: more than %d seals before the batches", ErrExport, maxSeals)
	}
	h, err := OpenHead(c.last, c.ring)
	switch {
	case errors.Is(err, ErrKeyTime):
	case err != nil:
		return fmt.Errorf("%w: a seal before the batches: %w", ErrExport, err)
	case h.Tenant != c.out.Tenant || !h.Seal:
		return fmt.Errorf("%w: a seal before the batches is of tenant %q or no seal", ErrExport, h.Tenant)
	default:
		err = c.v.Expect(c.last)
	}
	c.last = nil
	if errors.Is(err, ErrKeyTime) {
		return nil
	}
	return err
}

func (c *closing) batch(n uint64, data []byte, each func(*Record) error) error {
	b, err := ParseBatch(data)
	if err != nil {
		return fmt.Errorf("%w: batch %d: %w", ErrExport, n, err)
	}
	c.begun = true
	c.v.take(n, b)
	for i := range b.Records {
		if each == nil {
			break
		}
		if err := each(&b.Records[i]); err != nil {
			return err
		}
	}
	return nil
}

// close reads the head that closes the export. nil: its key was not valid, so that it
// says nothing of the ends, and the trail is not proved.
func (c *closing) close() (*Head, error) {
	h, key, err := readHead(c.last, c.ring)
	if err != nil {
		return nil, fmt.Errorf("%w: the head that closes it: %w", ErrExport, err)
	}
	if h.Tenant != c.out.Tenant || !h.Seal {
		return nil, fmt.Errorf("%w: the head that closes it is of tenant %q or no seal", ErrExport, h.Tenant)
	}
	c.out.Closed, c.v.closed = h.Time, h.Time
	if !key.ValidAt(h.Time) {
		c.v.Open("", fmt.Sprintf("the head that closes the export proves nothing: the key %s of node %s was not valid at %s", key.ID, h.Node, h.Time.Format(time.RFC3339)))
		return nil, nil
	}
	for _, p := range h.Chains {
		c.ends[p.ChainID] = p
	}
	return h, nil
}

// finish compares the end of each node's newest chain with the head.
func (c *closing) finish() (*Report, error) {
	h, err := c.close()
	if err != nil {
		return nil, err
	}
	if h == nil {
		return c.v.Finish(), nil
	}
	for _, id := range c.v.latest {
		w := c.v.chains[id]
		end, ok := c.ends[id]
		f := Fault{Node: id.Node, Chain: id.Chain, Seq: w.Seq}
		switch {
		case !ok:
			f.What, f.Detail = FaultForged, "no head that closes the export names this chain"
		case end.Seq > w.Seq:
			f.What, f.Seq, f.Last, f.Detail = FaultTruncated, w.Seq+1, end.Seq, "the head that closes the export says that the chain went on"
		case end != w.Position:
			f.What, f.Detail = FaultEdited, fmt.Sprintf("the head that closes the export ends the chain with record %d and another hash", end.Seq)
		default:
			if id.Node == h.Node { // its own word; of the others' chains it says what the stream has
				w.vouch(end.Seq, h.Time, true)
				c.v.covered(w, end.Seq, h.Time)
			}
			continue
		}
		c.v.fault(f)
	}
	for id, end := range c.ends {
		if w := c.v.chains[id]; w == nil || !w.seen {
			c.v.fault(Fault{What: FaultTruncated, Node: id.Node, Chain: id.Chain, Seq: 1, Last: end.Seq, Detail: "the head that closes the export names this chain, and it is not there"})
		}
	}
	return c.v.Finish(), nil
}

package schema

// Limits bounds what an engine reads and spends. In every field a value that is
// zero or negative means the default, and a value above the hard limit means the
// hard limit: there is no way to say "unlimited".
type Limits struct {
	Payload     int // bytes of one payload; default 1 MiB, hard 64 MiB
	Depth       int // nested arrays and objects; default 32, hard 256
	Keys        int // members of one object; default 1,024, hard 65,536
	Items       int // items of one array; default 10,000, hard 1,048,576
	StringBytes int // bytes of one string as written, quotes not counted; default 256 KiB, hard 64 MiB
	NumberBytes int // bytes of one number token; default 64, hard 64
	ExponentAbs int // absolute value of a written exponent; default 308, hard 308
	Violations  int // violations listed in one verdict; default 10, hard 100

	Fuel         Fuel
	Registration Registration
}

// Fuel bounds the work for one payload, in steps; a step is one visit of one
// schema node, one object member or array item, or work of about that cost.
// A payload of n bytes gets min(Base + PerByte*n, Max) steps.
type Fuel struct {
	Base    int // default 10,000, hard 1,000,000
	PerByte int // default 64, hard 1,024
	Max     int // default 1,000,000 (some 40 ms of one core), hard 100,000,000
}

// Registration bounds the schema documents themselves.
type Registration struct {
	TextBytes    int // bytes of the document; default 512 KiB, hard 4 MiB
	Depth        int // nested arrays and objects of the document; default 64, hard 128
	DocumentSize int // objects and booleans in the whole document; default 12,000, hard 100,000
	Nodes        int // schema nodes that Ref reaches; default 10,000, hard 100,000
	Branches     int // branches of one allOf, anyOf or oneOf; default 64, hard 1,024
	PatternBytes int // bytes of one regular expression; default 512, hard 4,096
	PatternSize  int // instructions of one compiled regular expression; default 10,000, hard 100,000

	// Expanded is how many node visits one single value may cost without
	// descending into it, with every reference followed and shared nodes counted
	// each time; default 5,000, hard 1,000,000. It is what stops chains of allOf
	// that double at each link.
	Expanded int
}

// DefaultLimits returns the defaults that the fields name.
func DefaultLimits() Limits { return Limits{}.Effective() }

// Effective returns l with defaults filled in and hard limits applied.
func (l Limits) Effective() Limits {
	fix(&l.Payload, 1<<20, 64<<20)
	fix(&l.Depth, 32, 256)
	fix(&l.Keys, 1024, 65536)
	fix(&l.Items, 10000, 1<<20)
	fix(&l.StringBytes, 256<<10, 64<<20)
	fix(&l.NumberBytes, 64, 64)
	fix(&l.ExponentAbs, 308, 308)
	fix(&l.Violations, 10, 100)
	fix(&l.Fuel.Base, 10000, 1000000)
	fix(&l.Fuel.PerByte, 64, 1024)
	fix(&l.Fuel.Max, 1000000, 100000000)
	r := &l.Registration
	fix(&r.TextBytes, 512<<10, 4<<20)
	fix(&r.Depth, 64, 128)
	fix(&r.DocumentSize, 12000, 100000)
	fix(&r.Nodes, 10000, 100000)
	fix(&r.Branches, 64, 1024)
	fix(&r.PatternBytes, 512, 4096)
	fix(&r.PatternSize, 10000, 100000)
	fix(&r.Expanded, 5000, 1000000)
	return l
}

// Steps returns the fuel for a payload of n bytes.
func (f Fuel) Steps(n int) int { return min(f.Base+f.PerByte*n, f.Max) }

func fix(v *int, normal, hard int) {
	switch {
	case *v <= 0:
		*v = normal
	case *v > hard:
		*v = hard
	}
}

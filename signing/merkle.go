package signing

import (
	"crypto/sha256"
	"encoding/base64"
	"strconv"
)

// The hashing of RFC 6962 section 2.1: leaves and inner nodes have prefixes of
// their own, so neither passes for the other.
const (
	leafPrefix = 0x00
	nodePrefix = 0x01
)

// maxLeaves is the size of the largest tree: it keeps an attestation within 314
// characters. maxPath is the longest path in it, maxNodes all its nodes.
const (
	maxLeaves = 32
	maxPath   = 5
	maxNodes  = 2*maxLeaves - 1
)

type hash [sumBytes]byte

func node(left, right *hash) hash {
	var b [1 + 2*sumBytes]byte
	b[0] = nodePrefix
	copy(b[1:], left[:])
	copy(b[1+sumBytes:], right[:])
	return sha256.Sum256(b[:])
}

// tree is an RFC 6962 tree over n leaves. nodes holds level after level, leaves
// first; a last node without a neighbour moves up unchanged, which gives the tree
// that RFC 6962 defines by splitting at powers of two.
type tree struct {
	n     int
	nodes [maxNodes]hash
}

// build computes the inner nodes and returns the root. n must be at least 1.
func (t *tree) build() *hash {
	at, width := 0, t.n
	for width > 1 {
		next := at + width
		up := t.nodes[next:]
		for i := 0; i+1 < width; i += 2 {
			up[i/2] = node(&t.nodes[at+i], &t.nodes[at+i+1])
		}
		if width%2 == 1 {
			up[width/2] = t.nodes[at+width-1]
		}
		at, width = next, (width+1)/2
	}
	return &t.nodes[at]
}

// appendPath appends the audit path of leaf i, lowest neighbour first.
func (t *tree) appendPath(dst []byte, i int) []byte {
	at, width := 0, t.n
	for width > 1 {
		if j := i ^ 1; j < width {
			dst = append(dst, t.nodes[at+j][:]...)
		}
		at, width, i = at+width, (width+1)/2, i/2
	}
	return dst
}

// pathLength returns the number of hashes in the path of leaf i of n.
func pathLength(i, n int) int {
	length := 0
	for ; n > 1; i, n = i/2, (n+1)/2 {
		if i^1 < n {
			length++
		}
	}
	return length
}

// rootOf computes the root from leaf i of n and its path, which must have
// pathLength(i, n) hashes.
func rootOf(leaf hash, i, n int, path []byte) hash {
	h := leaf
	for ; n > 1; i, n = i/2, (n+1)/2 {
		if i^1 >= n {
			continue
		}
		neighbour := hash(path[:sumBytes])
		path = path[sumBytes:]
		if i%2 == 1 {
			h = node(&neighbour, &h)
		} else {
			h = node(&h, &neighbour)
		}
	}
	return h
}

// rootOrigin starts the text that is signed for a root. A DSSE signature starts
// with "DSSEv1 ", so one can never pass for the other.
const rootOrigin = "signet/merkle-ed25519/v1\n"

const maxNote = len(rootOrigin) + len("32\n") + len(base64OfSum) + len("\n")

// appendNote appends the text that is signed for the root of a tree of n leaves.
func appendNote(dst []byte, n int, root *hash) []byte {
	dst = append(dst, rootOrigin...)
	dst = strconv.AppendInt(dst, int64(n), 10)
	dst = append(dst, '\n')
	dst = base64.StdEncoding.AppendEncode(dst, root[:])
	return append(dst, '\n')
}

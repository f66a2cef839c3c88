package wire

import (
	"errors"
	"strings"
)

// Limits of the names of workloads.
const (
	MaxSPIFFEBytes  = 2048 // of an ID, as the SPIFFE specification has it
	MaxDNSNameBytes = 253
)

// Errors of the names of workloads.
var (
	ErrSPIFFE  = errors.New("wire: not a SPIFFE ID of a workload: spiffe://TRUST-DOMAIN/PATH is wanted, the domain of a-z 0-9 . _ -, the path of segments of A-Z a-z 0-9 . _ - that are not empty, . or ..")
	ErrDNSName = errors.New("wire: not a DNS name of a workload: at least two labels of a-z 0-9 - in lower case are wanted, no wildcard, no address")
)

const spiffeScheme = "spiffe://"

// ParseSPIFFE splits the SPIFFE ID of a workload into its trust domain and its path,
// which starts with a slash. An ID has one spelling: nothing in it is escaped, and
// upper case in scheme or domain is refused, so that IDs compare byte for byte. An ID
// without a path is that of a trust domain, not of a workload.
//
// Error: ErrSPIFFE.
func ParseSPIFFE(id string) (domain, path string, err error) {
	rest, ok := strings.CutPrefix(id, spiffeScheme)
	slash := strings.IndexByte(rest, '/')
	if !ok || len(id) > MaxSPIFFEBytes || slash < 0 || !ValidTrustDomain(rest[:slash]) {
		return "", "", ErrSPIFFE
	}
	domain, path = rest[:slash], rest[slash:]
	for segment := range strings.SplitSeq(path[1:], "/") {
		if segment == "" || segment == "." || segment == ".." || strings.ContainsFunc(segment, notPathChar) {
			return "", "", ErrSPIFFE
		}
	}
	return domain, path, nil
}

// ValidTrustDomain reports whether s is a SPIFFE trust domain: 1 to 255 of a-z 0-9 . _ -.
func ValidTrustDomain(s string) bool {
	return s != "" && len(s) <= 255 && !strings.ContainsFunc(s, func(r rune) bool {
		return notPathChar(r) || r >= 'A' && r <= 'Z'
	})
}

func notPathChar(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '_' && r != '-'
}

// CheckDNSName reports whether s is the DNS name of a workload in its one spelling: two
// or more labels of a-z 0-9 and inner hyphens, lower case, no dot at the end, and the
// last label not all digits (that is an address).
//
// Error: ErrDNSName.
func CheckDNSName(s string) error {
	labels := strings.Split(s, ".")
	if len(s) > MaxDNSNameBytes || len(labels) < 2 {
		return ErrDNSName
	}
	for _, l := range labels {
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' || strings.ContainsFunc(l, func(r rune) bool {
			return notPathChar(r) || r >= 'A' && r <= 'Z' || r == '.' || r == '_'
		}) {
			return ErrDNSName
		}
	}
	if strings.Trim(labels[len(labels)-1], "0123456789") == "" {
		return ErrDNSName
	}
	return nil
}

package identity

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
)

// Tags of GeneralName (RFC 5280 section 4.2.1.6).
const (
	tagDNS = 2
	tagURI = 6
)

var oidAltName = asn1.ObjectIdentifier{2, 5, 29, 17}

var errAltNames = errors.New("its subject alternative names cannot be read")

// altNames returns the URI and DNS names of a certificate as they are written in it.
// Certificate.URIs has been through url.Parse, which gives several spellings one value;
// a name has one spelling here.
func altNames(cert *x509.Certificate) (uris, dns []string, err error) {
	for _, e := range cert.Extensions {
		if !e.Id.Equal(oidAltName) {
			continue
		}
		var names asn1.RawValue
		rest, err := asn1.Unmarshal(e.Value, &names)
		if err != nil || len(rest) > 0 || names.Class != asn1.ClassUniversal || names.Tag != asn1.TagSequence || !names.IsCompound {
			return nil, nil, errAltNames
		}
		for left := names.Bytes; len(left) > 0; {
			var v asn1.RawValue
			if left, err = asn1.Unmarshal(left, &v); err != nil || v.Class != asn1.ClassContextSpecific {
				return nil, nil, errAltNames
			}
			switch {
			case v.Tag != tagDNS && v.Tag != tagURI:
			case v.IsCompound:
				return nil, nil, errAltNames
			case v.Tag == tagDNS:
				dns = append(dns, string(v.Bytes))
			default:
				uris = append(uris, string(v.Bytes))
			}
		}
	}
	return uris, dns, nil
}

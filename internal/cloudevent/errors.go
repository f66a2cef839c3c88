package cloudevent

import (
	"errors"
	"fmt"
)

// Errors of this package. They come wrapped: test with errors.Is.
var (
	// ErrDuplicate: an attribute, a JSON member or the content type is given twice.
	ErrDuplicate = errors.New("cloudevent: attribute given twice")
	// ErrHeaderCase: a ce- header is not written in lower case.
	ErrHeaderCase = errors.New("cloudevent: ce- header is not lower case")
	// ErrMode: the content type names a mode or format that is not supported, or
	// the message mixes modes.
	ErrMode = errors.New("cloudevent: unsupported content mode")
	// ErrVersion: specversion is not 1.0.
	ErrVersion = errors.New("cloudevent: specversion is not 1.0")
	// ErrEncoding: a header value is not properly percent-encoded UTF-8.
	ErrEncoding = errors.New("cloudevent: malformed percent-encoding")
	// ErrJSON: the text is not a JSON event; *JSONError has the offset.
	ErrJSON = errors.New("cloudevent: malformed JSON event")
	// ErrAttribute: an attribute name or value breaks the rules.
	ErrAttribute = errors.New("cloudevent: bad attribute")
	// ErrMissing: a required attribute is absent.
	ErrMissing = errors.New("cloudevent: required attribute is absent")
	// ErrTooMany: more than MaxExtensions extension attributes.
	ErrTooMany = errors.New("cloudevent: too many extension attributes")
	// ErrTooLarge: the attributes take more than MaxAttrBytes as headers.
	ErrTooLarge = errors.New("cloudevent: attributes too large")
)

// JSONError is where and why a structured event was refused. Its text has no
// bytes of the event. errors.Is finds ErrJSON in it, and Cause if that is set.
type JSONError struct {
	Offset int    // byte offset into the text
	Reason string // one line, fixed text
	Cause  error  // a sentinel of this package that tells more, or nil
}

// Error implements error.
func (e *JSONError) Error() string {
	return fmt.Sprintf("%s at offset %d: %s", ErrJSON, e.Offset, e.Reason)
}

// Unwrap returns ErrJSON and the cause.
func (e *JSONError) Unwrap() []error {
	if e.Cause == nil {
		return []error{ErrJSON}
	}
	return []error{ErrJSON, e.Cause}
}

// attrError says which attribute is wrong. A hostile name is cut and quoted.
func attrError(err error, name []byte, reason string) error {
	if len(name) > 2*MaxNameBytes {
		name = name[:2*MaxNameBytes]
	}
	return fmt.Errorf("%w: %q: %s", err, name, reason)
}

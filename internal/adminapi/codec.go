package adminapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/signetbus/signet/internal/wire"
)

// Errors of the codec.
var (
	ErrRequest = errors.New("adminapi: malformed request")
	ErrAnswer  = errors.New("adminapi: malformed answer")
)

// RuleOtherTenant is the rule of the refusal of a request that names a principal of another
// tenant than the caller's.
const RuleOtherTenant = "admin/other-tenant"

// answer is the union of {"result": ...} and wire.ErrorAnswer.
type answer struct {
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *wire.APIError  `json:"error,omitempty"`
	Problem *wire.Problem   `json:"problem,omitempty"`
}

// EncodeRequest encodes a request; nil is the empty request.
func EncodeRequest(request any) ([]byte, error) {
	if request == nil {
		return []byte("{}"), nil
	}
	b, err := marshal(request)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	return b, nil
}

// DecodeRequest reads body into into, a pointer to a request struct. It refuses
// unknown members and trailing bytes; an empty body leaves into unchanged.
//
// Errors: ErrRequest, with the name of the member at fault.
func DecodeRequest(body []byte, into any) error {
	if len(bytes.TrimSpace(body)) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("%w: %w", ErrRequest, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: bytes after the request", ErrRequest)
	}
	return nil
}

// EncodeResult encodes the answer {"result": result}. Documents within it, such as records of
// the audit trail, keep their bytes: they are hashed.
func EncodeResult(result any) ([]byte, error) {
	raw, err := marshal(result)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	b, err := marshal(answer{Result: raw})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	return b, nil
}

// marshal is json.Marshal without its escapes for HTML, which it writes into a json.RawMessage
// too: a document with a > would no longer be in its one encoding.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// DecodeAnswer reads an answer into into, a pointer to a result struct or nil.
// A refusal comes back as *wire.Refusal; an answer that is neither a result nor
// a refusal is ErrAnswer. Unknown members of a result are left out, so that an
// older client can read a newer broker.
func DecodeAnswer(body []byte, into any) error {
	var a answer
	if err := json.Unmarshal(body, &a); err != nil {
		return fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	switch {
	case a.Problem != nil:
		return a.Problem.Refusal()
	case a.Error != nil:
		return wire.Refuse(a.Error.ErrCode, "", a.Error.Description)
	case a.Result == nil:
		return fmt.Errorf("%w: no result and no error", ErrAnswer)
	case into == nil:
		return nil
	}
	if err := json.Unmarshal(a.Result, into); err != nil {
		return fmt.Errorf("%w: result: %w", ErrAnswer, err)
	}
	return nil
}

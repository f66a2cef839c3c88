package jsonschema

import (
	"bytes"

	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/schema"
)

// validator implements schema.Validator for one plan.
type validator struct {
	root   *plan
	limits schema.Limits
}

var _ schema.Validator = (*validator)(nil)

// Validate implements schema.Validator. A payload that is not strict JSON never
// reaches the schema.
func (v *validator) Validate(contentType, data []byte) (out schema.Verdict) {
	if !isJSONType(contentType) {
		return schema.Verdict{Code: wire.CodeContentTypeMismatch, Detail: "the schema needs application/json or a +json type"}
	}
	defer func() {
		if recover() != nil {
			// The pooled state is dropped with the panic; the text of the panic
			// could hold payload bytes and is not passed on.
			out = schema.Verdict{Code: wire.CodeInternal, Detail: "the schema validator failed"}
		}
	}()
	e := evaluations.Get().(*evaluation)
	e.doc = takeDocument()
	out = v.judge(e, data)
	e.release()
	return out
}

func (v *validator) judge(e *evaluation, data []byte) schema.Verdict {
	if err := e.doc.parse(data, &v.limits); err != nil {
		return schema.Verdict{Code: err.Code(), Offset: err.Offset, Detail: string(err.Reason)}
	}
	e.start(v.limits.Fuel.Steps(len(data)), nil)
	if e.eval(v.root, 0, nil) && !e.spent {
		return schema.Verdict{OK: true}
	}
	if e.spent {
		return schema.Verdict{Code: wire.CodeSchemaFuelSpent, Detail: "validating the payload cost more steps than its size allows"}
	}
	return v.explain(e, len(data))
}

// explain runs the schema again to say what is wrong, on a budget of its own. It
// can only add detail: the payload is refused already.
func (v *validator) explain(e *evaluation, size int) schema.Verdict {
	r := newReport(v.limits.Violations)
	e.start(v.limits.Fuel.Steps(size), r)
	e.eval(v.root, 0, nil)
	out := schema.Verdict{
		Code: wire.CodeSchemaViolation, Violations: r.violations, Truncated: r.truncated || e.spent,
		Detail: "the payload breaks its schema",
	}
	if len(r.violations) > 0 {
		first := &r.violations[0]
		out.Offset = first.Offset
		out.Detail = "at " + quotePointer(first.At) + ": " + first.Message
	}
	return out
}

// isJSONType reports whether a media type is JSON: application/json or
// application/*+json, in any case, with no charset but UTF-8. Empty is JSON: the
// binding of the schema says so.
func isJSONType(b []byte) bool {
	if len(b) == 0 {
		return true
	}
	main, params, _ := bytes.Cut(b, []byte(";"))
	main = bytes.TrimSpace(main)
	const prefix = "application/"
	if len(main) <= len(prefix) || !bytes.EqualFold(main[:len(prefix)], []byte(prefix)) {
		return false
	}
	sub := main[len(prefix):]
	suffix := len(sub) - len("+json")
	if !bytes.EqualFold(sub, []byte("json")) && (suffix < 1 || !bytes.EqualFold(sub[suffix:], []byte("+json"))) {
		return false
	}
	for len(params) > 0 {
		var param []byte
		param, params, _ = bytes.Cut(params, []byte(";"))
		name, val, _ := bytes.Cut(bytes.TrimSpace(param), []byte("="))
		if bytes.EqualFold(name, []byte("charset")) && !bytes.EqualFold(bytes.Trim(val, `"`), []byte("utf-8")) {
			return false
		}
	}
	return true
}

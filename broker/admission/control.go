package admission

import (
	"github.com/signetbus/signet/broker/acl"
	"github.com/signetbus/signet/internal/wire"
)

const ruleControl = "control-header"

// reaches refuses control headers, though granted by name, that would act on subjects
// beyond those that the principal is granted: the right to a header is none to others'
// events. What else the value may be, the server says.
func reaches(s *Session, subject, name string, value []byte) *wire.Refusal {
	same := 0
	for _, h := range s.headers.All() {
		if wire.EqualFold(h.Name, name) {
			same++
		}
	}
	if same > 1 {
		// The server goes by one of them, and it need not be the one that was judged.
		return wire.Refuse(wire.CodeHeaderDuplicate, ruleControl, "header "+name)
	}
	switch name {
	case "Nats-Rollup":
		if string(value) == "sub" {
			return nil
		}
		// It takes away every event of the stream.
		if st := s.p.Tenant.StreamFor(subject); st != nil {
			for _, whole := range st.Subjects {
				if !acl.Publish(s.p, whole).Allowed {
					return wire.Refuse(wire.CodeHeaderDenied, ruleControl, "a rollup of all needs publish grants for every subject of the stream; sub replaces one")
				}
			}
		}
	case "Nats-Expected-Last-Subject-Sequence-Subject":
		// The server's answer tells the last sequence of that subject.
		filter := string(value)
		if wire.CheckFilter(filter) != nil || !acl.Publish(s.p, filter).Allowed && !acl.Subscribe(s.p, filter).Allowed {
			return wire.Refuse(wire.CodeHeaderDenied, ruleControl, "the subject of an expected sequence must be one that is granted: "+printable(value))
		}
	}
	return nil
}

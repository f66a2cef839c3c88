package guardmatrix

import (
	"fmt"
	"slices"
	"strings"
)

// Role is one kind of caller. What the oracle knows of its rights is what stands here.
type Role struct {
	Tenant, Name string

	Publish, Subscribe          []string
	KVRead, KVWrite             []string
	ObjectRead, ObjectWrite     []string
	Shares                      []string // STREAM.CONSUMER or STREAM.*
	AdminStreams, AdminConsumer bool
	Lenient                     bool // mode: audit
}

// FullName is what stands in the metadata of a consumer that the role owns.
func (r *Role) FullName() string { return r.Tenant + "/" + r.Name }

// Holder owns the consumers that are another's. It is in both tenants, and no role.
const Holder = "holder"

// Roles are the callers of the matrix.
var Roles = []Role{
	{Tenant: "shop", Name: "admin", AdminStreams: true, AdminConsumer: true},
	{Tenant: "shop", Name: "admin-streams", AdminStreams: true},
	{
		Tenant: "shop", Name: "owner", Subscribe: []string{"orders.>"},
		KVRead: []string{"cfg"}, KVWrite: []string{"cfg"}, ObjectRead: []string{"files"}, ObjectWrite: []string{"files"},
	},
	{Tenant: "shop", Name: "part", Subscribe: []string{"orders.*.paid"}, KVRead: []string{"cfg"}, ObjectRead: []string{"files"}},
	{Tenant: "shop", Name: "sharer", Subscribe: []string{"orders.*.paid"}, Shares: []string{"ORDERS.theirs"}},
	{Tenant: "shop", Name: "sharer-all", Shares: []string{"ORDERS.*", "SIDE.theirs"}},
	{Tenant: "shop", Name: "sharer-part", Subscribe: []string{"orders.*.paid"}, Shares: []string{"ORDERS.*"}},
	{Tenant: "shop", Name: "publisher", Publish: []string{"orders.>"}, KVWrite: []string{"cfg"}, ObjectWrite: []string{"files"}},
	{Tenant: "shop", Name: "without"},
	{Tenant: "shop", Name: "throwaway", Publish: []string{"telemetry.probe"}},
	{Tenant: "shop", Name: "lenient", Lenient: true},
	{Tenant: "mill", Name: "other", Subscribe: []string{"orders.>"}, KVRead: []string{"cfg"}, KVWrite: []string{"cfg"}},
}

// Stream is an asset: a stream, or that of a bucket.
type Stream struct {
	Name     string
	Kind     StreamKind
	Bucket   string
	Subjects []string
	Tenants  []string // that declare it
}

// StreamKind says what a stream is for.
type StreamKind int

// The kinds.
const (
	Events StreamKind = iota
	KV
	Objects
	DeadLetters
	Undeclared
)

// Streams are the assets of the matrix. Both tenants have a stream and a bucket of the same
// name; what only shop has is foreign to mill.
var Streams = []Stream{
	{Name: "ORDERS", Kind: Events, Subjects: []string{"orders.>"}, Tenants: []string{"shop", "mill"}},
	{Name: "SIDE", Kind: Events, Subjects: []string{"side.>"}, Tenants: []string{"shop"}},
	{Name: "KV_cfg", Kind: KV, Bucket: "cfg", Subjects: []string{"$KV.cfg.>"}, Tenants: []string{"shop", "mill"}},
	{Name: "KV_secret", Kind: KV, Bucket: "secret", Subjects: []string{"$KV.secret.>"}, Tenants: []string{"shop"}},
	{Name: "OBJ_files", Kind: Objects, Bucket: "files", Subjects: []string{"$O.files.C.>", "$O.files.M.>"}, Tenants: []string{"shop"}},
	{Name: "OBJ_vault", Kind: Objects, Bucket: "vault", Subjects: []string{"$O.vault.C.>", "$O.vault.M.>"}, Tenants: []string{"shop"}},
	{Name: "DLQ", Kind: DeadLetters, Tenants: []string{"shop", "mill"}},
	{Name: "NOPE", Kind: Undeclared},
}

// in returns the stream as the tenant has it.
func (s *Stream) in(tenant string) Stream {
	if slices.Contains(s.Tenants, tenant) {
		return *s
	}
	return Stream{Name: s.Name, Kind: Undeclared}
}

// declared are the patterns of events that a tenant declares.
func declared(tenant string) (out []string) {
	out = []string{"telemetry.>"}
	for _, s := range Streams {
		if s.Kind == Events && slices.Contains(s.Tenants, tenant) {
			out = append(out, s.Subjects...)
		}
	}
	return out
}

// Policy is the policy text of the roles. identity gives the identities of a principal,
// as a YAML list without brackets.
func Policy(identity func(tenant, name string) string) string {
	var b strings.Builder
	for i, tenant := range []string{"shop", "mill"} {
		if i > 0 {
			b.WriteString("---\n")
		}
		fmt.Fprintf(&b, "tenant: %s\nephemeral: [telemetry.>]\ndeadLetter: {maxBytes: 4MiB}\n", tenant)
		assets := map[StreamKind]string{Events: "streams", KV: "kv", Objects: "objects"}
		for _, kind := range []StreamKind{Events, KV, Objects} {
			var list []string
			for _, s := range Streams {
				switch {
				case s.Kind != kind || !slices.Contains(s.Tenants, tenant):
				case kind == Events:
					list = append(list, fmt.Sprintf("{name: %s, subjects: [%s], maxBytes: 16MiB}", s.Name, strings.Join(s.Subjects, ", ")))
				default:
					list = append(list, fmt.Sprintf("{bucket: %s, maxBytes: 4MiB}", s.Bucket))
				}
			}
			if len(list) > 0 {
				fmt.Fprintf(&b, "%s: [%s]\n", assets[kind], strings.Join(list, ", "))
			}
		}
		b.WriteString("principals:\n")
		for _, r := range append(slices.Clone(Roles), holder(tenant)) {
			if r.Tenant == tenant {
				fmt.Fprintf(&b, "  - {name: %s, identities: [%s]%s}\n", r.Name, identity(r.Tenant, r.Name), r.grants())
			}
		}
	}
	return b.String()
}

func holder(tenant string) Role {
	r := Role{Tenant: tenant, Name: Holder}
	for _, s := range Streams {
		s = s.in(tenant)
		switch s.Kind {
		case Events:
			r.Subscribe, r.Publish = append(r.Subscribe, s.Subjects...), append(r.Publish, s.Subjects...)
		case KV:
			r.KVRead, r.KVWrite = append(r.KVRead, s.Bucket), append(r.KVWrite, s.Bucket)
		case Objects:
			r.ObjectRead, r.ObjectWrite = append(r.ObjectRead, s.Bucket), append(r.ObjectWrite, s.Bucket)
		}
	}
	return r
}

func (r *Role) grants() string {
	var b strings.Builder
	list := func(key string, values []string) {
		if len(values) > 0 {
			fmt.Fprintf(&b, ", %s: [%s]", key, strings.Join(values, ", "))
		}
	}
	list("publish", r.Publish)
	list("subscribe", r.Subscribe)
	fmt.Fprintf(&b, ", kv: {read: [%s], write: [%s]}", strings.Join(r.KVRead, ", "), strings.Join(r.KVWrite, ", "))
	fmt.Fprintf(&b, ", objects: {read: [%s], write: [%s]}", strings.Join(r.ObjectRead, ", "), strings.Join(r.ObjectWrite, ", "))
	list("consumers", r.Shares)
	var areas []string
	if r.AdminStreams {
		areas = append(areas, "streams")
	}
	if r.AdminConsumer {
		areas = append(areas, "consumers")
	}
	list("admin", areas)
	if r.Lenient {
		b.WriteString(", mode: audit")
	}
	return b.String()
}

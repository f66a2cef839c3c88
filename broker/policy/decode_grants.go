package policy

import (
	"fmt"
	"maps"

	"github.com/goccy/go-yaml/ast"
)

// grantFields are the keys that roles and principals share; owner starts the rule
// names ("role order-writer").
func (r *docReader) grantFields(owner string, g *grantDecl) fields {
	g.grants = make(map[string][]Grant)
	list := func(key, verb string, check func(string) (string, error)) func(ast.Node) {
		return func(n ast.Node) {
			r.list(n, owner+"/"+key, func(i int, n ast.Node) {
				rule := fmt.Sprintf("%s/%s[%d]", owner, key, i)
				if s, until := r.limited(n, "grant", rule, check); s != "" {
					g.grants[verb] = append(g.grants[verb], Grant{Verb: verb, Pattern: s, Rule: rule, Until: until, Position: r.at(n)})
				}
			})
		}
	}
	buckets := func(key, read, write string) func(ast.Node) {
		return func(n ast.Node) {
			r.object(n, owner+"/"+key, fields{
				"read":  list(key+".read", read, checkBucket),
				"write": list(key+".write", write, checkBucket),
			})
		}
	}
	return fields{
		"publish":   list("publish", VerbPublish, templated(checkEventFilter)),
		"subscribe": list("subscribe", VerbSubscribe, templated(checkEventFilter)),
		"call":      list("call", VerbCall, templated(checkCall)),
		"serve":     list("serve", VerbServe, templated(checkServe)),
		"headers":   list("headers", VerbHeader, checkHeader),
		"sources":   list("sources", VerbSource, templated(checkPrefixPattern)),
		"types":     list("types", VerbType, templated(checkPrefixPattern)),
		"admin":     list("admin", VerbAdmin, checkArea),
		"consumers": list("consumers", VerbConsumer, templated(checkConsumer)),
		"kv":        buckets("kv", VerbKVRead, VerbKVWrite),
		"objects":   buckets("objects", VerbObjectRead, VerbObjectWrite),
		"discover": func(n ast.Node) {
			if r.bool(n, "discover") {
				g.grants[VerbDiscover] = []Grant{{Verb: VerbDiscover, Rule: owner + "/discover", Position: r.at(n)}}
			}
		},
		"limit":    func(n ast.Node) { g.limits = limitWords(r, n) },
		"priority": func(n ast.Node) { g.priority = readPriority(r, n) },
	}
}

func (r *docReader) role(name string, key, n ast.Node) {
	what := "role " + name
	if _, err := checkName(plainName, "role")(name); err != nil {
		r.fault(key, "%v", err)
		what = "role"
	}
	role := roleDecl{name: name, at: r.at(key)}
	fs := r.grantFields(what, &role.grantDecl)
	r.object(n, what, fs)
	r.doc.roles = append(r.doc.roles, role)
}

func (r *docReader) principal(_ int, n ast.Node) {
	p := principalDecl{at: r.at(n), mode: modeUnset}
	// The name is needed for the rule names of the grants, wherever it stands.
	what := "principal"
	peek := reader{file: r.file, faults: &faults{}}
	if m, ok := n.(*ast.MappingNode); ok {
		for _, v := range m.Values {
			if k, ok := v.Key.(*ast.StringNode); ok && k.Value == "name" && v.Value != nil {
				if name := parsed(&peek, v.Value, "", checkName(principalName, "principal")); name != "" {
					what = "principal " + name
				}
			}
		}
	}
	fs := r.grantFields(what, &p.grantDecl)
	maps.Copy(fs, fields{
		"name": func(n ast.Node) {
			p.at = r.at(n)
			p.name = parsed(&r.reader, n, "principal name", checkName(principalName, "principal"))
		},
		"disabled": func(n ast.Node) { p.disabled = r.bool(n, "disabled") },
		"until":    func(n ast.Node) { p.until = parsed(&r.reader, n, "until", parseTime) },
		"mode":     func(n ast.Node) { p.mode = r.mode(n) },
		"roles": func(n ast.Node) {
			r.list(n, "roles", func(i int, n ast.Node) {
				name, until := r.limited(n, "role", fmt.Sprintf("roles[%d]", i), checkName(plainName, "role"))
				if name != "" {
					p.roles = append(p.roles, roleUse{word: word{name, r.at(n)}, until: until})
				}
			})
		},
		"identities": func(n ast.Node) { r.list(n, "identities", func(_ int, n ast.Node) { r.identity(n, &p) }) },
	})
	seen := r.object(n, what, fs)
	r.need(n, what, seen, "name")
	if p.name != "" {
		r.doc.principals = append(r.doc.principals, p)
	}
}

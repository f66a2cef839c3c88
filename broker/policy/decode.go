package policy

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// Defaults of the keys that may be left out.
const (
	DefaultMaxAge             = 30 * 24 * time.Hour
	DefaultDuplicateWindow    = MinDuplicateWindow
	MinDuplicateWindow        = ReplayPast + ReplayFuture + replaySlack
	DefaultBurst              = time.Second
	DefaultDeadLetterMaxBytes = 64 * MiB
	DefaultDeadLetterMaxAge   = 7 * 24 * time.Hour
	DefaultAuditMaxBytes      = 32 * MiB
	DefaultAuditMaxAge        = 90 * 24 * time.Hour

	minStore = 64 * KiB // least maxBytes: less holds not even one event of usual size
	maxBurst = time.Hour
	// minAudit is room for one of the largest batches of each of four nodes.
	minAudit    = MiB
	minAuditAge = time.Hour
)

// docReader reads one document.
type docReader struct {
	reader
	open opener
	doc  *document
}

// readDocument returns nil for an empty document.
func readDocument(name string, n *ast.DocumentNode, open opener, f *faults) *document {
	switch n.Body.(type) {
	case nil, *ast.NullNode, *ast.CommentGroupNode:
		return nil
	}
	r := &docReader{reader: reader{file: name, faults: f}, open: open, doc: &document{}}
	d := r.doc
	d.at = r.at(n.Body)
	seen := r.object(n.Body, "document", fields{
		"tenant": func(n ast.Node) {
			d.at = r.at(n)
			d.tenant = parsed(&r.reader, n, "tenant", checkTenant)
		},
		"streams": func(n ast.Node) { r.list(n, "streams", r.stream) },
		"ephemeral": func(n ast.Node) {
			d.ephemeral = r.words(n, "ephemeral", checkDeclared)
		},
		"kv":         func(n ast.Node) { r.list(n, "kv", r.kvBucket) },
		"objects":    func(n ast.Node) { r.list(n, "objects", r.objectBucket) },
		"roles":      func(n ast.Node) { r.named(n, "roles", r.role) },
		"principals": func(n ast.Node) { r.list(n, "principals", r.principal) },
		"limits":     func(n ast.Node) { r.named(n, "limits", r.limit) },
		"limit":      func(n ast.Node) { d.limitAll = limitWords(r, n) },
		"schemas":    func(n ast.Node) { r.list(n, "schemas", r.schema) },
		"subjects":   func(n ast.Node) { r.list(n, "subjects", r.binding) },
		"deadLetter": r.deadLetter,
		"audit":      r.audit,
		"quota":      r.quota,
		"retry":      func(n ast.Node) { readRetry(r, n) },
		"mode":       func(n ast.Node) { d.mode, d.modeAt = r.mode(n), r.at(n) },
		"bridges":    func(n ast.Node) { r.fault(n, "bridges are not in this release") },
	})
	r.need(n.Body, "document", seen, "tenant")
	return d
}

// words reads a list of strings and keeps those that check accepts.
func (r *docReader) words(n ast.Node, what string, check func(string) (string, error)) []word {
	var list []word
	r.list(n, what, func(i int, n ast.Node) {
		if s := parsed(&r.reader, n, fmt.Sprintf("%s[%d]", what, i), check); s != "" {
			list = append(list, word{s, r.at(n)})
		}
	})
	return list
}

// duration reads a duration of at least least into to.
func (r *docReader) duration(what string, to *time.Duration, least time.Duration) func(ast.Node) {
	return func(n ast.Node) {
		text, ok := r.scalar(n, what)
		if !ok {
			return
		}
		switch v, err := parseDuration(text); {
		case err != nil:
			r.fault(n, "%s: %v", what, err)
		case v < least:
			r.fault(n, "%s: %s is less than the least, %s", what, v, least)
		default:
			*to = v
		}
	}
}

func (r *docReader) stream(_ int, n ast.Node) {
	s := Stream{MaxAge: DefaultMaxAge, DuplicateWindow: DefaultDuplicateWindow, At: r.at(n)}
	seen := r.object(n, "stream", fields{
		"name": func(n ast.Node) { s.Name = parsed(&r.reader, n, "stream name", checkStream) },
		"subjects": func(n ast.Node) {
			for _, w := range r.words(n, "subjects", checkDeclared) {
				s.Subjects = append(s.Subjects, w.text)
			}
			if seq, ok := n.(*ast.SequenceNode); ok && len(seq.Values) == 0 {
				r.fault(n, "subjects: at least one is wanted")
			}
		},
		"maxBytes":        func(n ast.Node) { s.MaxBytes = r.size(n, "maxBytes", minStore) },
		"maxAge":          r.duration("maxAge", &s.MaxAge, time.Second),
		"maxMsgSize":      func(n ast.Node) { s.MaxMsgSize = r.size(n, "maxMsgSize", 1) },
		"duplicateWindow": r.duration("duplicateWindow", &s.DuplicateWindow, MinDuplicateWindow),
		"replicas": func(n ast.Node) {
			if s.Replicas = r.number(n, "replicas", 5); s.Replicas%2 == 0 {
				r.fault(n, "replicas: 1, 3 or 5 is wanted")
			}
		},
		"unsafeSingleReplica": func(n ast.Node) { s.UnsafeSingleReplica = r.bool(n, "unsafeSingleReplica") },
		"log":                 func(n ast.Node) { s.Log = r.bool(n, "log") },
		"messageTTL":          func(n ast.Node) { s.MessageTTL = r.bool(n, "messageTTL") },
		"atomicBatches":       func(n ast.Node) { s.AtomicBatches = r.bool(n, "atomicBatches") },
		"fastBatches":         func(n ast.Node) { s.FastBatches = r.bool(n, "fastBatches") },
		"unsafeRollup":        func(n ast.Node) { s.UnsafeRollup = r.bool(n, "unsafeRollup") },
		"unsafeSchedules":     func(n ast.Node) { s.UnsafeSchedules = r.bool(n, "unsafeSchedules") },
		"retention":           func(n ast.Node) { s.Retention = readRetention(r, n) },
		"retry":               func(n ast.Node) { s.Retry.rule = readStreamRetry(r, n) },
	})
	r.need(n, "stream", seen, "name", "subjects", "maxBytes")
	if s.UnsafeSingleReplica && s.Replicas > 1 {
		r.fault(n, "stream: unsafeSingleReplica and replicas %d exclude each other", s.Replicas)
	}
	if s.Log && (s.MessageTTL || s.UnsafeRollup || s.UnsafeSchedules) {
		r.fault(n, "stream: log: true excludes messageTTL, unsafeRollup and unsafeSchedules: what goes from the middle of a stream cannot be proven complete")
	}
	if s.Retention != RetentionLimits && s.Log {
		r.fault(n, "stream: log: true excludes retention: %s: what goes when it is acknowledged cannot be proven complete", s.Retention)
	}
	if seen["maxAge"] && s.MaxAge < s.DuplicateWindow {
		r.fault(n, "stream: maxAge %s is less than duplicateWindow %s", s.MaxAge, s.DuplicateWindow)
	}
	if s.Name != "" {
		r.doc.streams = append(r.doc.streams, s)
	}
}

func (r *docReader) kvBucket(_ int, n ast.Node) {
	b := Bucket{History: 1, At: r.at(n)}
	seen := r.object(n, "kv", fields{
		"bucket":   func(n ast.Node) { b.Name = parsed(&r.reader, n, "bucket", checkBucket) },
		"maxBytes": func(n ast.Node) { b.MaxBytes = r.size(n, "maxBytes", minStore) },
		"history":  func(n ast.Node) { b.History = r.number(n, "history", 64) },
		"ttl":      r.duration("ttl", &b.TTL, time.Second),
	})
	r.need(n, "kv", seen, "bucket", "maxBytes")
	if b.Name != "" {
		r.doc.kv = append(r.doc.kv, b)
	}
}

func (r *docReader) objectBucket(_ int, n ast.Node) {
	b := Bucket{At: r.at(n)}
	seen := r.object(n, "object bucket", fields{
		"bucket":   func(n ast.Node) { b.Name = parsed(&r.reader, n, "bucket", checkBucket) },
		"maxBytes": func(n ast.Node) { b.MaxBytes = r.size(n, "maxBytes", minStore) },
	})
	r.need(n, "object bucket", seen, "bucket", "maxBytes")
	if b.Name != "" {
		r.doc.objects = append(r.doc.objects, b)
	}
}

func (r *docReader) deadLetter(n ast.Node) {
	dl := DeadLetter{MaxBytes: DefaultDeadLetterMaxBytes, MaxAge: DefaultDeadLetterMaxAge, At: r.at(n)}
	r.object(n, "deadLetter", fields{
		"maxBytes": func(n ast.Node) { dl.MaxBytes = r.size(n, "maxBytes", minStore) },
		"maxAge":   r.duration("maxAge", &dl.MaxAge, time.Minute),
		"owners":   func(n ast.Node) { dl.Owners = r.bool(n, "owners") },
	})
	r.doc.deadLetter = &dl
}

func (r *docReader) audit(n ast.Node) {
	a := Audit{MaxBytes: DefaultAuditMaxBytes, MaxAge: DefaultAuditMaxAge, At: r.at(n)}
	r.object(n, "audit", fields{
		"maxBytes": func(n ast.Node) { a.MaxBytes = r.size(n, "maxBytes", minAudit) },
		"maxAge":   r.duration("maxAge", &a.MaxAge, minAuditAge),
	})
	r.doc.audit = &a
}

func (r *docReader) schema(_ int, n ast.Node) {
	s := SchemaDoc{Format: "jsonschema", At: r.at(n)}
	seen := r.object(n, "schema", fields{
		"name":    func(n ast.Node) { s.Name = parsed(&r.reader, n, "schema name", checkName(schemaName, "schema")) },
		"version": func(n ast.Node) { s.Version = r.number(n, "version", 1_000_000) },
		"ref":     func(n ast.Node) { s.Ref = parsed(&r.reader, n, "ref", checkFragment) },
		"file":    func(n ast.Node) { r.schemaFile(n, &s) },
		"text": func(n ast.Node) {
			if text, ok := r.text(n, "text"); ok {
				s.Text = []byte(text)
				if !json.Valid(s.Text) {
					r.fault(n, "text: not JSON")
				}
			}
		},
		"format": func(n ast.Node) {
			if v, ok := r.text(n, "format"); ok && v != s.Format {
				r.fault(n, "format: %q is not in this release, only jsonschema is", v)
			}
		},
	})
	r.need(n, "schema", seen, "name", "version")
	if seen != nil && seen["file"] == seen["text"] {
		r.fault(n, "schema: one of file and text is wanted")
	}
	s.SHA256 = sha256.Sum256(s.Text)
	if s.Name != "" {
		r.doc.schemas = append(r.doc.schemas, s)
	}
}

func (r *docReader) schemaFile(n ast.Node, s *SchemaDoc) {
	rel, ok := r.text(n, "file")
	if !ok {
		return
	}
	if r.open == nil {
		r.fault(n, "file: this policy was not read from a directory; put the schema under text")
		return
	}
	data, path, err := r.open(r.file, rel)
	if err != nil {
		r.fault(n, "file: %v", err)
		return
	}
	if !json.Valid(data) {
		r.fault(n, "file: %s is not JSON", path)
		return
	}
	s.Text, s.File = data, path
}

func (r *docReader) binding(i int, n ast.Node) {
	b := bindingDecl{}
	b.At = r.at(n)
	seen := r.object(n, "subject rule", fields{
		"match": func(n ast.Node) { b.Match = parsed(&r.reader, n, "match", checkFilter) },
		"schema": func(n ast.Node) {
			b.schema = word{parsed(&r.reader, n, "schema", checkName(schemaName, "schema")), r.at(n)}
		},
		"version": func(n ast.Node) {
			if _, ok := n.(*ast.StringNode); ok {
				r.fault(n, "version: ranges are not in this release; write one number, or leave it out for the newest")
				return
			}
			b.version = r.number(n, "version", 1_000_000)
		},
		"require": func(n ast.Node) {
			switch v, ok := r.text(n, "require"); {
			case !ok:
			case v != RequireAttested && v != RequireProducer && v != RequireLogged:
				r.fault(n, "require: attested, producer or logged is wanted, not %q", v)
			default:
				b.Require = v
			}
		},
		"contentType": func(n ast.Node) { b.ContentType = parsed(&r.reader, n, "contentType", checkMediaType) },
		"onFailure":   func(n ast.Node) { b.OnFailure = r.onFailure(n) },
		"mode":        func(n ast.Node) { b.Mode = r.mode(n) },
		"maxPayload":  func(n ast.Node) { b.MaxPayload = r.size(n, "maxPayload", 1) },
		"encrypted": func(n ast.Node) {
			b.Encrypted = r.bool(n, "encrypted")
			b.plainSaid = !b.Encrypted
		},
		"audit": func(n ast.Node) {
			switch v, ok := r.text(n, "audit"); {
			case !ok:
			case v != "full":
				r.fault(n, "audit: full is wanted, not %q; leave it out for the record of each minute", v)
			default:
				b.AuditFull = true
			}
		},
	})
	r.need(n, "subject rule", seen, "match")
	if seen["version"] && !seen["schema"] {
		r.fault(n, "subject rule: version without schema")
	}
	if b.Match != "" {
		b.Rule = "subject " + b.Match
		r.doc.bindings = append(r.doc.bindings, b)
	}
}

func (r *docReader) onFailure(n ast.Node) Failure {
	var reject, store bool
	before := len(r.faults.list)
	r.list(n, "onFailure", func(_ int, n ast.Node) {
		switch v, ok := r.text(n, "onFailure"); {
		case !ok:
		case v == "reject":
			reject = true
		case v == "deadLetter":
			store = true
		default:
			r.fault(n, "onFailure: reject or deadLetter is wanted, not %q", v)
		}
	})
	switch {
	case !reject && len(r.faults.list) == before:
		r.fault(n, "onFailure: reject must be in the list: what fails is never let in")
	case store:
		return FailureDeadLetter
	}
	return FailureReject
}

package archtest

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"sort"
	"strings"
	"testing"
)

const module = "github.com/signetbus/signet"

// pkg is what `go list -json` says of one package.
type pkg struct {
	ImportPath   string
	Dir          string
	GoFiles      []string
	TestGoFiles  []string
	XTestGoFiles []string
	Imports      []string
	Deps         []string
}

func listPackages(t *testing.T) map[string]pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Dir,GoFiles,TestGoFiles,XTestGoFiles,Imports,Deps", "./...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	pkgs := map[string]pkg{}
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatalf("decode go list: %v", err)
		}
		if rest, ok := strings.CutPrefix(p.ImportPath, module); ok {
			pkgs[strings.TrimPrefix(rest, "/")] = p
		}
	}
}

// allowed is the import table: for each package of ours, the packages of ours and
// the modules of others that it may import directly. The standard library is free.
// A package that is missing here may not exist.
var allowed = map[string][]string{
	"internal/wire":                {},
	"internal/wire/codegen":        {},
	"internal/durablefile":         {},
	"internal/cloudevent":          {"internal/wire"},
	"internal/cloudevent/sdkevent": {"internal/wire", "internal/cloudevent", "github.com/cloudevents/sdk-go/v2"},
	"internal/adminapi":            {"internal/wire"},
	"internal/backupfile":          {"internal/wire", "internal/cloudevent", "signing", "signing/keyring", "github.com/klauspost/compress"},
	"internal/auditlog":            {"internal/wire", "signing", "signing/keyring", "signing/tlog"},
	"internal/strictyaml":          {"github.com/goccy/go-yaml"},
	"signing/internal/dsse":        {"internal/wire"},
	"signing":                      {"internal/wire", "internal/cloudevent", "signing/keyring", "signing/internal/dsse", "github.com/nats-io/nkeys", "golang.org/x/mod"},
	"signing/tlog":                 {"internal/wire", "internal/cloudevent", "signing", "signing/keyring", "golang.org/x/mod"},
	"signing/payload":              {"internal/wire", "signing/keyring", "github.com/nats-io/nkeys"},
	"signing/keyring":              {"internal/wire", "internal/cloudevent", "signing/internal/dsse", "github.com/nats-io/nkeys"},
	"schema":                       {"internal/wire"},
	"schema/jsonschema":            {"internal/wire", "schema", "github.com/santhosh-tekuri/jsonschema/v6", "golang.org/x/text"},
	"ratelimit":                    {"internal/wire"},
	"dlq":                          {"internal/wire", "internal/cloudevent"},
	"broker/policy":                {"internal/wire", "ratelimit", "github.com/goccy/go-yaml"},
	"broker/acl":                   {"internal/wire", "broker/policy"},
	"broker/identity":              {"internal/wire", "broker/policy", "github.com/nats-io/nkeys", "github.com/go-jose/go-jose/v4"},
	"broker/jwks":                  {"internal/durablefile", "broker/identity"},
	"broker/ca":                    {"internal/durablefile", "internal/wire"},
	"broker/admission": {
		"internal/wire", "internal/cloudevent", "signing", "signing/keyring", "signing/payload", "schema", "ratelimit", "dlq",
		"broker/policy", "broker/acl",
	},
	"broker/jsapi":                {"internal/wire", "broker/policy", "broker/acl"},
	"broker/internal/guardmatrix": {},
	"broker/gate": {
		"internal/wire", "broker/policy", "broker/acl", "broker/identity", "broker/admission", "broker/jsapi",
		"signing", "ratelimit", "github.com/nats-io/nkeys",
	},
	"broker/internal/integrity": {"internal/durablefile", "github.com/minio/highwayhash", "github.com/klauspost/compress", "golang.org/x/crypto"},
	"broker/internal/embed":     {"internal/durablefile", "internal/wire", "github.com/nats-io/nats-server/v2", "github.com/nats-io/nats.go"},
	"broker/store":              {"internal/wire", "broker/policy", "dlq", "github.com/nats-io/nats.go", "golang.org/x/sys"},
	"broker/audit":              {"internal/durablefile", "internal/wire", "internal/auditlog", "signing", "github.com/nats-io/nats.go", "github.com/rs/zerolog"},
	"broker/deadletter":         {"internal/wire", "broker/policy", "dlq", "ratelimit", "broker/store", "github.com/nats-io/nats.go", "github.com/rs/zerolog"},
	"broker/redrive": {
		"internal/wire", "internal/adminapi", "internal/cloudevent", "signing", "signing/keyring", "dlq", "broker/policy", "broker/acl", "broker/admission",
		"broker/jsapi", "broker/store", "github.com/nats-io/nats.go",
	},
	"broker/schedule": {
		"internal/wire", "internal/adminapi", "internal/cloudevent", "broker/policy", "broker/acl", "broker/admission", "broker/store",
		"github.com/nats-io/nats.go", "github.com/rs/zerolog",
	},
	"broker/admin": {
		"internal/wire", "internal/adminapi", "broker/policy", "broker/acl", "dlq", "signing/keyring", "broker/audit", "internal/auditlog",
		"broker/store", "broker/redrive", "github.com/nats-io/nats.go", "github.com/rs/zerolog",
	},
	"broker/translog": {
		"internal/wire", "signing", "signing/keyring", "signing/tlog", "broker/store", "github.com/nats-io/nats.go", "github.com/rs/zerolog",
	},
	"broker/backup": {
		"internal/wire", "internal/adminapi", "internal/backupfile", "signing", "signing/keyring", "broker/policy", "broker/store",
		"github.com/rs/zerolog",
	},
	"broker/diskguard": {"golang.org/x/sys"},
	"broker/memguard":  {},
	"broker/ops":       {"internal/wire", "github.com/prometheus/client_golang"},
	"broker": {
		"internal/wire", "internal/durablefile", "internal/adminapi", "internal/cloudevent", "signing", "signing/keyring", "schema", "schema/jsonschema",
		"ratelimit", "dlq", "broker/policy", "broker/acl", "broker/identity", "broker/jwks", "broker/ca", "broker/admission", "broker/jsapi",
		"broker/gate", "broker/internal/embed", "broker/internal/integrity", "broker/store", "broker/audit", "internal/auditlog", "broker/deadletter", "broker/backup", "broker/redrive", "broker/schedule", "broker/admin", "broker/ops", "broker/diskguard", "broker/memguard", "broker/translog", "signing/tlog",
		"github.com/rs/zerolog", "github.com/nats-io/nkeys", "github.com/nats-io/nats.go", "internal/strictyaml",
		"github.com/fsnotify/fsnotify", "github.com/prometheus/client_golang",
	},
	"client":                  {"internal/wire", "internal/durablefile", "internal/adminapi", "internal/cloudevent", "internal/cloudevent/sdkevent", "signing", "signing/keyring", "signing/payload", "schema", "dlq", "github.com/nats-io/nats.go", "github.com/nats-io/nkeys", "github.com/cloudevents/sdk-go/v2"},
	"client/admin":            {"internal/wire", "internal/adminapi", "signing/keyring", "client", "dlq", "github.com/nats-io/nats.go"},
	"internal/doctor":         {"broker", "broker/policy", "client", "client/admin", "signing/keyring", "github.com/nats-io/nkeys", "github.com/rs/zerolog", "golang.org/x/sys"},
	"internal/attack":         {"internal/wire", "broker/policy", "client", "client/admin", "signing", "signing/keyring", "github.com/nats-io/nkeys"},
	"internal/support":        {"github.com/nats-io/nkeys"},
	"internal/freeport":       {},
	"internal/testca":         {},
	"broker/brokertest":       {"*"},
	"broker/clustertest":      {"*"},
	"bench":                   {"*"},
	"bench/cmd/bench":         {"*"},
	"bench/cmd/faults":        {"*"},
	"cmd/signet":              {"*"},
	"internal/archtest":       {},
	"examples/githubwebhooks": {},
}

// onlyImporter names modules that exactly one subtree may import.
var onlyImporter = map[string][]string{
	"github.com/nats-io/nats-server/v2": {"broker/internal/embed", "bench"},
	"github.com/cloudevents/sdk-go/v2":  {"internal/cloudevent/sdkevent", "client"},
	"github.com/segmentio/kafka-go":     {},
	"github.com/go-jose/go-jose/v4":     {"broker/identity"},
}

// clientNever may not be anywhere in the dependency closure of the SDK.
var clientNever = []string{
	"github.com/nats-io/nats-server/v2", "github.com/segmentio/kafka-go", "github.com/rs/zerolog",
	"github.com/santhosh-tekuri/jsonschema/v6", "plugin",
}

func standard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".")
}

func within(path, root string) bool { return path == root || strings.HasPrefix(path, root+"/") }

func TestImportTable(t *testing.T) {
	pkgs := listPackages(t)
	checked := 0
	for name, p := range pkgs {
		if strings.HasPrefix(name, "examples/") && name != "examples/githubwebhooks" {
			checkExample(t, name, p)
			continue
		}
		may, ok := allowed[name]
		if !ok {
			t.Errorf("package %q is not in the import table (docs/ARCHITECTURE.md): add a row or move the code", name)
			continue
		}
		for _, imp := range p.Imports {
			checked++
			if standard(imp) || imp == "C" {
				continue
			}
			if rest, ours := strings.CutPrefix(imp, module+"/"); ours {
				if !permits(may, rest, true) {
					t.Errorf("%s imports %s: the import table does not allow it", name, rest)
				}
			} else if !permits(may, imp, false) {
				t.Errorf("%s imports %s: the import table does not allow it", name, imp)
			}
		}
	}
	for name := range allowed {
		if _, ok := pkgs[name]; !ok {
			t.Errorf("the import table names %q, which does not exist: an empty room", name)
		}
	}
	t.Logf("checked %d imports of %d packages", checked, len(pkgs))
}

func permits(may []string, imp string, exact bool) bool {
	for _, m := range may {
		if m == "*" || m == imp || !exact && within(imp, m) {
			return true
		}
	}
	return false
}

// Examples stand for users: they may use only what users may.
func checkExample(t *testing.T, name string, p pkg) {
	for _, imp := range p.Imports {
		rest, ours := strings.CutPrefix(imp, module+"/")
		if ours && !within(rest, "client") && !within(rest, "examples") {
			t.Errorf("%s imports %s: examples use the public packages only", name, rest)
		}
	}
}

func TestSingleImporters(t *testing.T) {
	pkgs := listPackages(t)
	for target, owners := range onlyImporter {
		for name, p := range pkgs {
			for _, imp := range p.Imports {
				if !within(imp, target) {
					continue
				}
				if !permits(owners, name, true) {
					t.Errorf("%s imports %s: only %v may", name, imp, owners)
				}
			}
		}
	}
}

func TestClientClosure(t *testing.T) {
	pkgs := listPackages(t)
	for _, name := range []string{"client", "client/admin"} {
		p, ok := pkgs[name]
		if !ok {
			t.Fatalf("no package %s", name)
		}
		deps := append([]string(nil), p.Deps...)
		sort.Strings(deps)
		for _, dep := range deps {
			for _, never := range clientNever {
				if within(dep, never) {
					t.Errorf("%s depends on %s: SDK users would inherit it", name, dep)
				}
			}
		}
	}
}

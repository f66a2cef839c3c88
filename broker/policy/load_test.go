package policy

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// copyGood copies testdata/good to a directory with strict modes.
func copyGood(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	entries, err := os.ReadDir("testdata/good")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join("testdata/good", e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, e.Name()), string(data))
	}
	return dir
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func loadGood(t *testing.T) *Set {
	t.Helper()
	b, err := Load([]string{copyGood(t)})
	if err != nil {
		t.Fatal(err)
	}
	s, err := Compile(b)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestLoad(t *testing.T) {
	s := loadGood(t)
	shop := s.Tenant("shop")
	if len(s.Tenants()) != 2 || s.Tenants()[0] != shop || s.Tenant("nobody") != nil {
		t.Fatalf("tenants: %v", s.Tenants())
	}

	orders := shop.StreamFor("orders.eu.created")
	if orders == nil || orders.Name != "ORDERS" || orders.MaxBytes != 20*GiB || orders.MaxAge != 30*24*time.Hour ||
		orders.MaxMsgSize != 256*KiB || orders.DuplicateWindow != 4*time.Minute || orders.Replicas != 0 {
		t.Errorf("ORDERS: %+v", orders)
	}
	if p := shop.StreamFor("payments.eu.failed"); p == nil || p.DuplicateWindow != 10*time.Minute || p != shop.Stream("PAYMENTS") {
		t.Errorf("PAYMENTS: %+v", p)
	}
	if shop.StreamFor("payments.eu.other") != nil || shop.StreamFor("telemetry.x") != nil || !shop.IsEphemeral("telemetry.x") {
		t.Error("subjects in the wrong place")
	}
	if b := shop.KVBucket("carts"); b == nil || b.History != 5 || b.TTL != time.Hour || b.MaxBytes != 64*MiB {
		t.Errorf("carts: %+v", b)
	}
	if shop.ObjectBucket("invoices") == nil || shop.ObjectBucket("carts") != nil {
		t.Error("object buckets are wrong")
	}
	if shop.DeadLetter.MaxBytes != 128*MiB || s.Tenant("stall").DeadLetter.MaxAge != DefaultDeadLetterMaxAge {
		t.Error("dead letter sizes are wrong")
	}
	if a := s.Tenant("stall").Audit; a.MaxBytes != DefaultAuditMaxBytes || a.MaxAge != DefaultAuditMaxAge {
		t.Errorf("audit by default: %+v", a)
	}

	checkout := s.ByNkey("UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4")
	if checkout == nil || checkout != s.Principal("shop", "checkout") || checkout != s.PrincipalByFullName("shop/checkout") ||
		checkout.FullName() != "shop/checkout" || checkout.DefaultSource() != "/shop/checkout" {
		t.Fatalf("checkout: %+v", checkout)
	}
	if g := checkout.Grants.Publish.Covers("orders.eu.paid"); g == nil || g.Rule != "role order-writer/publish[1]" ||
		!strings.HasSuffix(g.File, "shop.yaml") || g.Line != 13 {
		t.Errorf("grant: %v", g)
	}
	if g := checkout.Grants.Publish.Covers("telemetry.checkout.x"); g == nil || g.Rule != "principal checkout/publish[0]" {
		t.Errorf("grant: %v", g)
	}
	if len(checkout.Limits) != 1 || checkout.Limits[0].Messages != 500 || checkout.Limits[0].Bytes != 5<<20 ||
		checkout.Limits[0].Burst != 2*time.Second || !checkout.Limits[0].Applies("orders.eu.paid") {
		t.Errorf("limits: %+v", checkout.Limits)
	}
	if !s.Principal("shop", "former").Disabled || s.Principal("shop", "web") == nil || s.Principal("stall", "checkout") != nil {
		t.Error("principals are wrong")
	}
	auditor := s.Principal("shop", "auditor")
	if want := []string{"telemetry.>", "orders.>", "payments.*.settled", "payments.*.failed"}; !slices.Equal(auditor.SubscribePatterns(), want) {
		t.Errorf("a grant of > reaches %v, want %v", auditor.SubscribePatterns(), want)
	}
	if auditor.Grants.Discover == nil || checkout.Grants.Discover != nil {
		t.Error("discover is wrong")
	}
}

func TestBindings(t *testing.T) {
	shop := loadGood(t).Tenant("shop")
	for _, tt := range []struct {
		subject, rule string
		version       int
	}{
		{"orders.eu.created", "subject orders.*.created", 2},
		{"orders.test.created", "subject orders.test.created", 1},
		{"orders.eu.paid", "subject >", 0},
		{"telemetry.x", "subject >", 0},
		{"rpc.billing.refund", "subject rpc.billing.refund", 0},
		{"rpc.billing.other", "", 0},
	} {
		rule, version := "", 0
		if b := shop.Binding(tt.subject); b != nil {
			rule = b.Rule
			if b.Schema != nil {
				version = b.Schema.Version
			}
		}
		if rule != tt.rule || version != tt.version {
			t.Errorf("Binding(%s) = %q version %d, want %q version %d", tt.subject, rule, version, tt.rule, tt.version)
		}
	}
	if b := shop.Binding("orders.eu.created"); b.OnFailure != FailureDeadLetter || b.Schema.Ref != "#/definitions/order" ||
		filepath.Base(b.Schema.File) != "order.json" || len(b.Schema.Text) == 0 {
		t.Errorf("binding: %+v", b)
	}
	if b := shop.Binding("rpc.billing.refund"); b.Require != "attested" || b.ContentType != "application/json" {
		t.Errorf("binding: %+v", b)
	}
}

func TestDigest(t *testing.T) {
	dir := copyGood(t)
	digest := func(paths ...string) string {
		t.Helper()
		b, err := Load(paths)
		if err != nil {
			t.Fatal(err)
		}
		s, err := Compile(b)
		if err != nil {
			t.Fatal(err)
		}
		return s.Digest()
	}
	shop, stall := filepath.Join(dir, "shop.yaml"), filepath.Join(dir, "stall.yml")
	first := digest(shop, stall)
	if len(first) != 64 || digest(stall, shop) != first || digest(dir) != first || digest(dir, shop) != first {
		t.Error("the digest depends on the order of the files")
	}
	if other := copyGood(t); digest(other) != first {
		t.Error("the digest depends on the names of the files")
	}
	writeFile(t, filepath.Join(dir, "order.json"), `{"definitions": {"order": {}}}`)
	if digest(dir) == first {
		t.Error("a changed schema file left the digest as it was")
	}
}

func TestLoadRefuses(t *testing.T) {
	const head = "tenant: shop\n"
	schema := func(file string) string { return head + "schemas: [{name: s, version: 1, file: '" + file + "'}]\n" }
	for _, tt := range []struct {
		name string
		make func(t *testing.T, dir string)
		want string
	}{
		{"no file", func(*testing.T, string) {}, "holds no *.yaml file"},
		{"group writable", func(t *testing.T, dir string) {
			writeFile(t, dir+"/p.yaml", head)
			if err := os.Chmod(dir+"/p.yaml", 0o620); err != nil {
				t.Fatal(err)
			}
		}, "p.yaml: the group or others may write it (mode 0620): chmod go-w"},
		{"folder that others may put files into", func(t *testing.T, dir string) {
			writeFile(t, dir+"/p.yaml", head)
			if err := os.Chmod(dir, 0o777); err != nil {
				t.Fatal(err)
			}
		}, "the group or others may put files into it (mode 0777): chmod go-w"},
		{"world writable schema", func(t *testing.T, dir string) {
			writeFile(t, dir+"/p.yaml", schema("s.json"))
			writeFile(t, dir+"/s.json", "{}")
			if err := os.Chmod(dir+"/s.json", 0o602); err != nil {
				t.Fatal(err)
			}
		}, `p.yaml:2:39: file: "s.json": the group or others may write it`},
		{
			"missing schema", func(t *testing.T, dir string) { writeFile(t, dir+"/p.yaml", schema("s.json")) },
			`file: "s.json": no such file or directory`,
		},
		{"schema above", func(t *testing.T, dir string) {
			writeFile(t, filepath.Dir(dir)+"/s.json", "{}")
			writeFile(t, dir+"/p.yaml", schema("../s.json"))
		}, "must be a relative path below the directory"},
		{
			"absolute schema", func(t *testing.T, dir string) { writeFile(t, dir+"/p.yaml", schema("/etc/hostname")) },
			"must be a relative path below the directory",
		},
		{"schema through a link", func(t *testing.T, dir string) {
			writeFile(t, dir+"/p.yaml", schema("s.json"))
			if err := os.Symlink("/etc/hostname", dir+"/s.json"); err != nil {
				t.Fatal(err)
			}
		}, `file: "s.json": path escapes from parent`},
		{"schema is a directory", func(t *testing.T, dir string) {
			writeFile(t, dir+"/p.yaml", schema("s.json"))
			if err := os.Mkdir(dir+"/s.json", 0o700); err != nil {
				t.Fatal(err)
			}
		}, "not a regular file"},
		{"schema is no JSON", func(t *testing.T, dir string) {
			writeFile(t, dir+"/p.yaml", schema("s.json"))
			writeFile(t, dir+"/s.json", "{")
		}, "is not JSON"},
		{"too large", func(t *testing.T, dir string) {
			writeFile(t, dir+"/p.yaml", head+strings.Repeat("#", MaxFileBytes))
		}, "over 1048576 bytes"},
		{"faults of two files", func(t *testing.T, dir string) {
			writeFile(t, dir+"/a.yaml", head+"x: 1\n")
			writeFile(t, dir+"/b.yaml", head+"y: 1\n")
		}, "b.yaml:2:1: document: unknown key \"y\""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "policy")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			tt.make(t, dir)
			_, err := Load([]string{dir})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q in it", err, tt.want)
			}
		})
	}
	if _, err := Load(nil); err == nil {
		t.Error("accepted no files")
	}
	if _, err := Load([]string{"/nonexistent/policy.yaml"}); err == nil {
		t.Error("accepted a missing file")
	}
}

func TestSchemaFilesAreShared(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir+"/s.json", `{"definitions": {"a": {}, "b": {}}}`)
	writeFile(t, dir+"/p.yaml", `tenant: shop
schemas:
  - {name: a, version: 1, file: s.json, ref: "#/definitions/a"}
  - {name: b, version: 1, file: ./s.json, ref: "#/definitions/b"}
`)
	b, err := Load([]string{dir + "/p.yaml"})
	if err != nil {
		t.Fatal(err)
	}
	s, err := Compile(b)
	if err != nil {
		t.Fatal(err)
	}
	list := s.Tenant("shop").Schemas
	if len(list) != 2 || &list[0].Text[0] != &list[1].Text[0] || list[0].SHA256 != list[1].SHA256 {
		t.Error("one schema file was read twice")
	}
}

func TestCompileEmpty(t *testing.T) {
	if _, err := Compile(&Bundle{}); err == nil {
		t.Error("compiled an empty bundle")
	}
	if err := (*Bundle)(nil).Validate(); err == nil {
		t.Error("validated nothing")
	}
}

// TestCompiledSize: few bytes must not multiply to a huge policy.
func TestCompiledSize(t *testing.T) {
	var b strings.Builder
	b.WriteString("tenant: shop\nstreams: [{name: A, subjects: [a.>], maxBytes: 1GiB}]\nroles: {r: {publish: [")
	b.WriteString(strings.Repeat("a.b,", 5000))
	b.WriteString("a.c]}}\nprincipals:\n")
	for i := range 300 {
		b.WriteString("  - {name: p" + strings.Repeat("x", i%50) + string(rune('a'+i/50)) + ", roles: [r]}\n")
	}
	_, err := Parse("p.yaml", []byte(b.String()))
	if err == nil || !strings.Contains(err.Error(), "make more than 1000000 grants") {
		t.Errorf("got %v", err)
	}
}

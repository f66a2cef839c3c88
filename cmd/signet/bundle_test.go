package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/internal/support"
)

func seedText(t *testing.T, create func() (nkeys.KeyPair, error)) string {
	t.Helper()
	pair, err := create()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := pair.Seed()
	if err != nil {
		t.Fatal(err)
	}
	return string(seed)
}

// readBundle returns the entries and, as first of order, the manifest.
func readBundle(t *testing.T, file string) (entries map[string][]byte, order []string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zip, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	entries = map[string][]byte{}
	for in := tar.NewReader(zip); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return entries, order
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(h.Name, "signet-support/")
		entries[name], order = data, append(order, name)
	}
}

// secrets is one of every kind, each with the part that must not be found.
func secrets(t *testing.T) map[string]string {
	user := seedText(t, nkeys.CreateUser)
	pem := strings.Repeat("Zm9vYmFyYmF6cXV1", 4)
	return map[string]string{
		user: user[2:], seedText(t, nkeys.CreateAccount): "", seedText(t, nkeys.CreateOperator): "", seedText(t, nkeys.CreateServer): "",
		seedText(t, nkeys.CreateCluster): "", seedText(t, nkeys.CreateCurveKeys): "",
		"-----BEGIN PRIVATE KEY-----\\n" + pem + "\\n-----END PRIVATE KEY-----": pem,
		"Bearer b34r3rT0k3nValue": "b34r3rT0k3nValue", "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJqd3RzZWNyZXQifQ.c2lnbmF0dXJlanN0": "c2lnbmF0dXJlanN0",
		"tls://joe:us3r1nf0pass@bus.example.org:4222": "us3r1nf0pass", "signet-node-v1.prod.NABC.bm9kZXRva2VubmV2ZXI": "bm9kZXRva2VubmV2ZXI",
		"password: yamlPassw0rd": "yamlPassw0rd", "clientSecret: 'quoted Passw0rd'": "quoted Passw0rd",
	}
}

// A secret of each kind is planted wherever one could be; none may be in a bundle.
func TestBundleHoldsNoPlantedSecret(t *testing.T) {
	planted := secrets(t)
	var comments, log strings.Builder
	log.WriteString("start of the log, which stays\n")
	for s := range planted {
		comments.WriteString("\n# " + s + "\n")
		quoted, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		log.WriteString(`{"level":"info","message":` + string(quoted) + "}\n" + strings.ReplaceAll(s, `\n`, "\n") + "\n")
	}
	comments.WriteString("\n# the database password is hunter2Hunter2\n")
	// A folder and a log named after a seed, and one in the environment.
	pathSeed, envSeed, payload := seedText(t, nkeys.CreateUser), seedText(t, nkeys.CreateServer), "p4yl0adText"
	home := t.TempDir()
	dir := filepath.Join(home, pathSeed)
	b := brokertest.New(t, brokertest.Options{Dir: dir, Change: func(c *broker.Config) { c.Ops.Listen = "127.0.0.1:0" }})
	for _, file := range []string{b.State.Config, b.State.Policy} {
		f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.WriteString(comments.String())
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	logFile := filepath.Join(dir, seedText(t, nkeys.CreateUser)+".log")
	if err := os.WriteFile(logFile, []byte(log.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Client("app").Publish(t.Context(), "orders.created", client.NewEvent("x", []byte(`{"id":"`+payload+`"}`))); err == nil {
		t.Fatal("the schema lets it pass")
	}
	t.Setenv("SIGNET_HOME", home)
	t.Setenv("SIGNET_NAME", envSeed)
	t.Setenv("SIGNET_PASSWORD", "envPassw0rd")
	if err := client.SaveContext(&client.Context{Name: "op", URL: b.URL(), NkeySeedFile: b.Cred("operator"), CAFile: b.State.CA, RootKey: b.State.Root}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(home, "b.tar.gz")
	var out, errOut bytes.Buffer
	code := run([]string{
		"support-bundle", "--out", file, "--config", b.State.Config, "--context", "op", "--ops", b.OpsAddr().String(), "--log", logFile, "--log", logFile + envSeed,
	}, strings.NewReader(""), &out, &errOut, os.Getenv)
	if code != 0 {
		t.Fatalf("exit code %d\n%s", code, errOut.String())
	}
	entries, order := readBundle(t, file)
	hidden := []string{pathSeed, envSeed, payload, "envPassw0rd", "hunter2Hunter2", filepath.Base(logFile)[2:40]}
	for s, part := range planted {
		if part == "" {
			part = s[2:40]
		}
		hidden = append(hidden, part)
	}
	for _, files := range [][]string{{b.State.NodeSeed, b.State.RootSeed, b.State.Key}, {b.Cred("app"), b.Cred("operator")}} {
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			lines := strings.Split(strings.TrimSpace(string(text)), "\n")
			hidden = append(hidden, lines[len(lines)/2])
		}
	}
	for name, data := range entries {
		for _, h := range hidden {
			if bytes.Contains(data, []byte(h)) || strings.Contains(name, h) {
				t.Errorf("%s holds %q", name, h)
			}
		}
	}
	want := []string{"manifest.json", "doctor.json", "version.json", "system.txt", "config.yaml", "policy.yaml", "metrics.txt", "status.json", "consumers.json", "refusals.json", "log-1.txt"}
	if strings.Join(order, " ") != strings.Join(want, " ") {
		t.Errorf("entries %v, want %v", order, want)
	}
	// What it is for is still there.
	for name, text := range map[string]string{
		"doctor.json": "STREAM_001", "config.yaml": "maxConnections: 5000", "policy.yaml": "name: reader", "status.json": `"ORDERS"`,
		"refusals.json": `"demo/app"`, "log-1.txt": "start of the log, which stays", "metrics.txt": "signet_reload_ok",
	} {
		if !bytes.Contains(entries[name], []byte(text)) {
			t.Errorf("%s has no %s:\n%s", name, text, entries[name])
		}
	}
	checkManifest(t, file, entries)
}

func checkManifest(t *testing.T, file string, entries map[string][]byte) {
	t.Helper()
	var m support.Manifest
	if err := json.Unmarshal(entries[support.ManifestName], &m); err != nil {
		t.Fatal(err)
	}
	if len(m.Entries) != len(entries)-1 || len(m.Missing) != 1 {
		t.Errorf("manifest: %d entries of %d, missing %q", len(m.Entries), len(entries)-1, m.Missing)
	}
	for _, e := range m.Entries {
		sum := sha256.Sum256(entries[e.Name])
		if e.SHA256 != hex.EncodeToString(sum[:]) || e.Bytes != len(entries[e.Name]) || e.What == "" {
			t.Errorf("manifest of %s: %+v", e.Name, e)
		}
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, mode %v", err, info.Mode())
	}
}

func TestLogTailBeginsAtALine(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	line := strings.Repeat("x", 999) + "\n"
	if err := os.WriteFile(file, []byte(strings.Repeat(line, maxLogTail/1000+100)+"the end\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := logTail(file)
	if err != nil || len(got) > maxLogTail || !bytes.HasPrefix(got, []byte(line)) || !bytes.HasSuffix(got, []byte("\nthe end\n")) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if _, err := logTail(t.TempDir()); err == nil {
		t.Error("a folder has a tail")
	}
}

package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/signetbus/signet/internal/freeport"
)

// TestGuideCommandsRun: whatever command the guide for auditors shows is run by its
// script, word for word.
func TestGuideCommandsRun(t *testing.T) {
	guide, err := os.ReadFile("../../docs/guides/verify-an-event.md")
	if err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile("testdata/script/guide_verify.txtar")
	if err != nil {
		t.Fatal(err)
	}
	commands := regexp.MustCompile("(?m)^    (signet .*)$|`(signet [a-z]+ [^`]*\\.[^`]*)`").FindAllStringSubmatch(string(guide), -1)
	for _, c := range commands {
		if command := c[1] + c[2]; !strings.Contains(string(script), "\nrc 0 "+command) {
			t.Errorf("the script does not run %q", command)
		}
	}
	if len(commands) < 9 {
		t.Errorf("only %d commands found in the guide", len(commands))
	}
}

// TestGuideDeadLettersCommandsRun: whatever the guide for dead letters shows is run by its
// script, word for word.
func TestGuideDeadLettersCommandsRun(t *testing.T) {
	guide, err := os.ReadFile("../../docs/guides/dead-letters.md")
	if err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile("testdata/script/dlq.txtar")
	if err != nil {
		t.Fatal(err)
	}
	commands := regexp.MustCompile("(?m)^    (signet .*)$").FindAllStringSubmatch(string(guide), -1)
	for _, c := range commands {
		if !regexp.MustCompile(`(?m)^(rc [03]|start [A-Z]+ .*) ` + regexp.QuoteMeta(c[1]) + "( --context [a-z-]+)?$").Match(script) {
			t.Errorf("the script does not run %q", c[1])
		}
	}
	if len(commands) < 17 {
		t.Errorf("only %d commands found in the guide", len(commands))
	}
}

const (
	firstService   = "../../docs/guides/first-service.md"
	secureServices = "../../docs/guides/secure-services.md"
)

// serve runs the lines of the guide up to the broker, with free ports in place of those
// that it names, and returns the other lines.
func (n *newcomer) serve(t *testing.T, commands string) (rest string) {
	t.Helper()
	lines := strings.Split(commands, "\n")
	if len(lines) != 5 || lines[0] != `make build && export PATH="$PWD/bin:$PATH"` || lines[1] != "signet init bus" || lines[2] != "signet serve --config bus/signet.yaml &" {
		t.Fatalf("the guide has these commands, and five of another kind are known here:\n%s", commands)
	}
	addr, err := freeport.Addr()
	if err != nil {
		t.Fatal(err)
	}
	n.env = append(n.env, "SIGNET_OPS_LISTEN=off", "PATH="+filepath.Join(n.dir, "bin")+string(filepath.ListSeparator)+os.Getenv("PATH"))
	n.run(t, "signet init bus --listen "+addr)
	n.broker(t, "exec signet serve --config bus/signet.yaml 2>&1", `"message":"ready"`)
	return strings.Join(lines[3:], "\n")
}

// shows compares what was shown with what the guide says, from top to bottom. The port is
// of this test.
func shows(t *testing.T, shown, says string) {
	t.Helper()
	port := regexp.MustCompile(`tls://(localhost|127\.0\.0\.1):\d+`)
	for line := range strings.Lines(says) {
		if !strings.Contains(port.ReplaceAllString(shown, "tls://HOST"), port.ReplaceAllString(strings.TrimSpace(line), "tls://HOST")) {
			t.Errorf("the guide says %q, and this is shown:\n%s", line, shown)
		}
	}
}

// TestGuideFirstService does what the guide tells a newcomer to do.
func TestGuideFirstService(t *testing.T) {
	n := newNewcomer(t)
	rest := n.serve(t, block(t, firstService, "run: five commands"))
	shows(t, n.run(t, rest), block(t, firstService, "run: output"))
	n.run(t, block(t, firstService, "run: refused"))
	policy := filepath.Join(n.dir, "bus", "policy.yaml")
	if err := os.Chmod(policy, 0o640); err != nil { // for a broker of another user
		t.Fatal(err)
	}
	shows(t, n.run(t, block(t, firstService, "run: reader")), "main/checkout\n{\"order\":1}")
	if info, err := os.Stat(policy); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("signet policy add has changed the mode of the policy: %v %v", info, err)
	}
	shows(t, n.run(t, "signet ca renew checkout/cert.pem --ca bus/ca"), "checkout/cert.pem")
	// What was handed over is enough by itself, wherever it is, and the rest is not there.
	elsewhere := t.TempDir()
	if err := os.Rename(filepath.Join(n.dir, "checkout"), filepath.Join(elsewhere, "c")); err != nil {
		t.Fatal(err)
	}
	shows(t, n.run(t, "SIGNET_HOME="+filepath.Join(elsewhere, "c")+" signet pub events.checkout.paid -d '{\"order\":2}'"), "stored: EVENTS seq 2")
	n.run(t, "signet policy add checkout --dir bus --publish 'events.>' # exit code 2\nsignet policy add other --dir bus --out elsewhere --publish 'events.>' --spiffe spiffe://other/x # exit code 2\nsignet policy add other --dir bus # exit code 2")
	config := filepath.Join(n.dir, "bus", "signet.yaml")
	if err := os.Chmod(config, 0o660); err != nil {
		t.Fatal(err)
	}
	if said := n.run(t, "signet policy add third --dir bus --publish 'events.x' # exit code 2"); !strings.Contains(said, "chmod go-w") || strings.Contains(said, "--dir names") {
		t.Errorf("a configuration that the group may write: %s", said)
	}
	if _, err := os.Stat(filepath.Join(n.dir, "elsewhere")); err == nil {
		t.Error("a workload that was refused has got a folder")
	}
}

// TestGuideSecureServices builds and runs the programs of the guide for people who write
// services, the last one with a broker that issues certificates.
func TestGuideSecureServices(t *testing.T) {
	n := newNewcomer(t)
	config := filepath.Join(n.dir, "bus", "signet.yaml")
	first := block(t, firstService, "run: five commands")
	n.run(t, "bin/signet init bus --listen 127.0.0.1:0")
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	enrols := strings.Replace(string(text), "  # enrolment:", "  enrolment:", 1)
	addr, err := freeport.Addr()
	if err != nil {
		t.Fatal(err)
	}
	enrols = strings.Replace(enrols, "listen: 127.0.0.1:0", "listen: "+addr, 1)
	if err := os.WriteFile(config, []byte(enrols), 0o600); err != nil {
		t.Fatal(err)
	}
	if enrols == string(text) || !strings.Contains(first, "signet init bus\n") {
		t.Fatal("signet.yaml has no enrolment to turn on")
	}
	n.env = append(n.env, "SIGNET_OPS_LISTEN=off", "PATH="+filepath.Join(n.dir, "bin")+string(filepath.ListSeparator)+os.Getenv("PATH"))
	n.broker(t, "exec signet serve --config bus/signet.yaml 2>&1", `"message":"ready"`)
	n.run(t, block(t, secureServices, "run: grants"))
	home := func(name string) string { return "export SIGNET_HOME=" + filepath.Join(n.dir, name) + " && " }
	checkout := block(t, secureServices, "run: checkout")
	n.goProgram(t, "one", home("checkout"), checkout, "stored as EVENTS/1", "refused, as it should be: ")
	n.ownModule(t, checkout, block(t, secureServices, "run: module"))
	n.goProgram(t, "two", home("billing"), block(t, secureServices, "run: billing"), `order-7-paid of main/checkout: {"order": 7}`)
	plain := regexp.MustCompile(`(?m)^\tc, err := client\.Connect\(.*$`)
	renewing := plain.ReplaceAllLiteralString(checkout, strings.ReplaceAll(block(t, secureServices, "run: enrolment"), `"checkout/`, `"`+filepath.Join(n.dir, "checkout")+`/`))
	if !strings.Contains(renewing, "WithEnrolment") {
		t.Fatal("the program does not connect as it did")
	}
	n.goProgram(t, "three", home("checkout"), renewing, "stored as EVENTS/", "refused, as it should be: ")
}

// ownModule makes a module of a program as the guide says, beside the folder that was handed
// over. go mod tidy reads more modules than the repository needs (those of its dependencies'
// tests), so a machine that is new gets them from its proxy here, once.
func (n *newcomer) ownModule(t *testing.T, source, commands string) {
	t.Helper()
	repository, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(n.dir, "own")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	told := strings.Replace(commands, "signet=../signet\n", "signet="+repository+"\n", 1)
	if told == commands {
		t.Fatal("the guide does not say where the repository is")
	}
	// In one shell, which goes on only while all is well.
	shows(t, n.run(t, "cd own && export GOFLAGS=-mod=mod GONOSUMDB=* && "+strings.ReplaceAll(strings.TrimSpace(told), "\n", " && ")), "stored as EVENTS/")
}

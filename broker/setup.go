package broker

import (
	"bytes"
	"crypto/x509"
	_ "embed" // the policy and configuration templates
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/broker/ca"
	"github.com/signetbus/signet/internal/durablefile"
)

// Lifetimes of what Setup makes.
const (
	keyringTTL    = 365 * 24 * time.Hour
	attestKeyTTL  = 2 * 365 * 24 * time.Hour
	renewalMargin = 30 * 24 * time.Hour
)

//go:embed templates/dev-policy.yaml
var devPolicy string

//go:embed templates/init-policy.yaml
var initPolicy string

//go:embed templates/signet.yaml
var initConfig string

// Setup says what state to make.
type Setup struct {
	// Dir is the folder, made if missing.
	Dir string
	// Name of the node, as in Config.Name.
	Name string
	// Hosts are the DNS names and addresses of the server certificate beside localhost.
	Hosts []string
	// Listen is written into the configuration.
	Listen string
	// Dev makes the demo policy and keeps the root seed for renewals; otherwise a
	// starting policy for production is written.
	Dev bool
	// Encrypt makes a key for the store and turns encryption at rest on. A store that is
	// there stays as it is.
	Encrypt bool
	// Policy replaces the built-in policy: a text in which {{nkey "name"}} becomes
	// the public key of a credential that Setup makes. Empty means the built-in one.
	Policy string
}

// State is where things are in a folder that Setup made.
type State struct {
	Dir       string
	Config    string // signet.yaml
	Policy    string // policy.yaml
	CA        string // certificate of the authority, for clients
	CADir     string
	Cert, Key string            // of the server
	RootSeed  string            // to be taken offline, except in dev
	Root      string            // public key of the root
	NodeSeed  string            // attestation key of this node
	Keyring   string            // signed keyring
	StoreKey  string            // key of encryption at rest
	Creds     map[string]string // principal name -> nkey seed file
}

func layout(dir string) *State {
	at := func(p ...string) string { return filepath.Join(append([]string{dir}, p...)...) }
	return &State{
		Dir: dir, Config: at("signet.yaml"), Policy: at("policy.yaml"),
		CADir: at("ca"), CA: at("ca", ca.CACertFile), Cert: at("tls", "server.pem"), Key: at("tls", "server.key"),
		RootSeed: at("keys", "root.seed"), NodeSeed: at("keys", "node.seed"), Keyring: at("keys", "keyring.json"),
		StoreKey: at("keys", "store.key"),
		Creds:    map[string]string{},
	}
}

// Run makes the state, or completes what is there: keys, certificates, policy and
// configuration that exist are kept, so that a second run is harmless. What would
// expire within a month is renewed where the key for it is at hand.
func (s Setup) Run() (*State, error) {
	st := layout(s.Dir)
	for _, d := range []string{s.Dir, filepath.Dir(st.Cert), filepath.Dir(st.NodeSeed), filepath.Join(s.Dir, "creds")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("broker: set up: %w", err)
		}
	}
	for _, step := range []struct {
		what string
		do   func(*State) error
	}{
		{"certificates", s.certificates}, {"keys", s.keys}, {"policy", s.policy}, {"configuration", s.config},
	} {
		if err := step.do(st); err != nil {
			return nil, fmt.Errorf("broker: set up %s: %w", step.what, err)
		}
	}
	return st, nil
}

func (s Setup) certificates(st *State) error {
	if r, err := ca.ServerTLS(st.Cert, st.Key); err == nil && time.Until(r.Expires()) > renewalMargin {
		return nil
	}
	authority, err := authorityOf(st.CADir, s.Name)
	if err != nil {
		return err
	}
	// A second run is not told the hosts again: clients go on to use those of the first.
	return authority.IssueServer(st.Cert, st.Key, append(slices.Clone(s.Hosts), certifiedHosts(st.Cert, s.Hosts)...), 0)
}

// certifiedHosts returns the names and addresses that the certificate in file is good
// for, valid or not, without those in but and those that every certificate has.
func certifiedHosts(file string, but []string) []string {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil
	}
	hosts := slices.Clone(cert.DNSNames)
	for _, ip := range cert.IPAddresses {
		hosts = append(hosts, ip.String())
	}
	return slices.DeleteFunc(hosts, func(h string) bool {
		return h == "localhost" || h == "127.0.0.1" || h == "::1" || slices.Contains(but, h)
	})
}

// authorityOf reads the authority in dir, or makes one. It is asked for only when
// something is to be signed: its key belongs offline.
func authorityOf(dir, name string) (*ca.Authority, error) {
	authority, err := ca.Load(dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return authority, err
	}
	if _, statErr := os.Stat(filepath.Join(dir, ca.CACertFile)); statErr == nil {
		return nil, fmt.Errorf("a certificate needs renewal and the authority's key is not here: %w", err)
	}
	return ca.Create(dir, "signet "+name)
}

// keys makes the root, the node key and a keyring that holds it.
func (s Setup) keys(st *State) error {
	key, err := makeNodeKey(st.NodeSeed, s.Name)
	if err != nil {
		return err
	}
	return makeRing(st, []nodeKey{key}, time.Now())
}

func rootFile(st *State) string { return filepath.Join(filepath.Dir(st.Keyring), "root.pub") }

func readRoot(st *State) error {
	b, err := os.ReadFile(rootFile(st))
	st.Root = strings.TrimSpace(string(b))
	return err
}

func (s Setup) policy(st *State) error {
	text := s.Policy
	switch {
	case text != "":
	case s.Dev:
		text = devPolicy
	default:
		text = initPolicy
	}
	var out bytes.Buffer
	// The credentials are made (or found) even when the policy stands, so that the
	// caller learns their files.
	t, err := template.New("policy").Funcs(template.FuncMap{"nkey": func(name string) (string, error) {
		file := filepath.Join(s.Dir, "creds", name+".nk")
		kp, err := seedFile(file, nkeys.CreateUser)
		if err != nil {
			return "", err
		}
		st.Creds[name] = file
		return kp.PublicKey()
	}}).Parse(text)
	if err != nil {
		return err
	}
	if err := t.Execute(&out, s); err != nil {
		return err
	}
	return keep(st.Policy, out.Bytes())
}

// tenant is that of the built-in policies, whose workloads may come in by certificates of
// the authority that is made with it; empty for a policy of the caller's.
func (s Setup) tenant() string {
	switch {
	case s.Policy != "":
		return ""
	case s.Dev:
		return "demo"
	}
	return "main"
}

func (s Setup) config(st *State) error {
	if s.Encrypt {
		if err := storeKey(st); err != nil {
			return err
		}
	}
	t, err := template.New("config").Parse(initConfig)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := t.Execute(&out, map[string]any{"Name": s.Name, "Listen": s.Listen, "Root": st.Root, "Encrypt": s.Encrypt, "Tenant": s.tenant()}); err != nil {
		return err
	}
	return keep(st.Config, out.Bytes())
}

// seedFile reads the seed in file, or makes a new one there with mode 0600.
func seedFile(file string, create func() (nkeys.KeyPair, error)) (nkeys.KeyPair, error) {
	b, err := readSecret(file)
	if err == nil {
		defer clear(b)
		return nkeys.FromSeed(bytes.TrimSpace(b))
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	kp, err := create()
	if err != nil {
		return nil, err
	}
	seed, err := kp.Seed() // the key pair's own memory: not ours to wipe
	if err != nil {
		return nil, err
	}
	text := append(bytes.Clone(seed), '\n')
	defer clear(text)
	return kp, durablefile.Replace(file, text, 0o600)
}

// keep writes data, for its owner alone, unless the file exists.
func keep(file string, data []byte) error {
	if _, err := os.Stat(file); err == nil {
		return nil
	}
	return durablefile.Replace(file, data, 0o600)
}

// readSecret reads a small file that only its owner may read.
func readSecret(file string) ([]byte, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("broker: %s has mode %04o: a secret must be readable by its owner only (chmod 600)", file, mode)
	}
	return os.ReadFile(file)
}

package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/internal/freeport"
)

// Kind is which server.
type Kind string

// The kinds.
const (
	Raw    Kind = "raw"    // nats-server with JetStream
	Signet Kind = "signet" // the broker of this module
)

// Sync is when an acknowledgement is given.
type Sync string

// The sync settings.
const (
	// Lazy acknowledges before the disk has it: Signet's unsafe-lazy-sync, the
	// default of nats-server.
	Lazy Sync = "lazy"
	// Durable acknowledges what the disk has: Signet's default, SyncAlways of
	// nats-server.
	Durable Sync = "durable"
)

// ServerConfig is what Start needs.
type ServerConfig struct {
	Kind Kind
	Sync Sync
	// Dir holds keys, certificates and policy. What is there is used again.
	Dir string
	// Store holds the streams. Empty means a folder inside Dir.
	Store string
	// Listen is host:port. Empty means a free port of 127.0.0.1.
	Listen string
	// Policy is the text of broker.Setup, for Signet.
	Policy string
	// KeyFile and PreviousKeyFile are those of broker.EncryptionConfig, for Signet.
	// Empty means that the store is not encrypted, as that of Raw is not.
	KeyFile, PreviousKeyFile string
	// Cipher is that of broker.EncryptionConfig. Empty means its default.
	Cipher string
	// MaxBytes is storage.maxBytes, for Signet. 0 means its default.
	MaxBytes int64
	// Nodes makes a cluster of so many, 3 or 5, all of them in the one process. Store,
	// Listen, the key files and MaxBytes are then not used. 0 means a server by itself.
	Nodes int
}

// Address is how clients reach a server.
type Address struct {
	URL   string            `json:"url"`
	CA    string            `json:"ca"`    // file
	Creds map[string]string `json:"creds"` // principal to seed file
	Root  string            `json:"root"`  // public key of the keyring's root; Signet only
	// Policies are the policy files of the nodes of a cluster; Signet only.
	Policies []string `json:"policies,omitempty"`
}

// Cred is the principal that both kinds of server know in the measurements.
const Cred = "bench"

// ExitAgain is the exit code of a Signet that wants to be started anew.
const ExitAgain = 75

const (
	serveFlag = "-serve-one"
	startWait = 60 * time.Second
	stopWait  = 20 * time.Second
)

// command is one line from the driver to a server.
type command struct {
	Do   string `json:"do"`             // stats, settle, profile, stop
	File string `json:"file,omitempty"` // of profile; empty ends a profile
}

// answer is one line from a server to the driver. The first one, not asked for,
// has the address.
type answer struct {
	Error   string   `json:"error,omitempty"`
	Address *Address `json:"address,omitempty"`
	Stats   *Stats   `json:"stats,omitempty"`
}

// ServeIfAsked runs a server when the program was started by Start, and then does
// not return. Programs that use Start call it first.
func ServeIfAsked() {
	if len(os.Args) != 3 || os.Args[1] != serveFlag {
		return
	}
	var cfg ServerConfig
	err := json.Unmarshal([]byte(os.Args[2]), &cfg)
	if err == nil {
		err = serve(&cfg, os.Stdin, os.Stdout)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s server: %v\n", cfg.Kind, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func serve(cfg *ServerConfig, in io.Reader, out io.Writer) error {
	start := startRaw
	switch {
	case cfg.Kind == Signet && cfg.Nodes > 0:
		start = startSignetNodes
	case cfg.Kind == Signet:
		start = startSignet
	case cfg.Nodes > 0:
		start = startRawNodes
	}
	ctx, cancel := context.WithTimeout(context.Background(), startWait)
	defer cancel()
	write := json.NewEncoder(out)
	address, stop, err := start(ctx, cfg)
	if err != nil {
		return errors.Join(err, write.Encode(answer{Error: err.Error()}))
	}
	if err := write.Encode(answer{Address: address}); err != nil {
		return err
	}
	read := json.NewDecoder(in)
	var profile *os.File
	for {
		var c command
		if err := read.Decode(&c); err != nil || c.Do == "stop" {
			ctx, cancel := context.WithTimeout(context.Background(), stopWait)
			defer cancel()
			return stop(ctx)
		}
		var a answer
		if err := obey(&c, &a, &profile); err != nil {
			a.Error = err.Error()
		}
		if err := write.Encode(a); err != nil {
			return err
		}
	}
}

func obey(c *command, a *answer, profile **os.File) (err error) {
	switch c.Do {
	case "stats", "settle":
		s := readStats(c.Do == "settle")
		a.Stats = &s
	case "profile":
		if c.File == "" {
			return endProfile(*profile)
		}
		if *profile, err = os.Create(c.File); err != nil {
			return err
		}
		return pprof.StartCPUProfile(*profile)
	default:
		return fmt.Errorf("bench: unknown command %q", c.Do)
	}
	return nil
}

// endProfile also writes what was allocated since the start of the process.
func endProfile(cpu *os.File) error {
	pprof.StopCPUProfile()
	if err := cpu.Close(); err != nil {
		return err
	}
	f, err := os.Create(strings.TrimSuffix(cpu.Name(), ".pprof") + ".allocs.pprof")
	if err != nil {
		return err
	}
	return errors.Join(pprof.Lookup("allocs").WriteTo(f, 0), f.Close())
}

type stopFunc func(context.Context) error

func startSignet(ctx context.Context, cfg *ServerConfig) (*Address, stopFunc, error) {
	addr, err := freeport.Addr() // it may be started again there
	if err != nil {
		return nil, nil, err
	}
	st, err := broker.Setup{Dir: cfg.Dir, Name: "bench", Listen: addr, Policy: cfg.Policy}.Run()
	if err != nil {
		return nil, nil, err
	}
	c, err := broker.LoadConfig(st.Config, nil)
	if err != nil {
		return nil, nil, err
	}
	if cfg.Listen != "" {
		c.Listen = cfg.Listen
	}
	if cfg.Store != "" {
		c.State = filepath.Join(cfg.Store, "signet")
	}
	c.Storage.Encryption = broker.EncryptionConfig{KeyFile: cfg.KeyFile, PreviousKeyFile: cfg.PreviousKeyFile, Cipher: cfg.Cipher}
	c.Ops.Listen = "off"
	c.Drain = stopWait / 2
	c.Gate.ConnectionRate = 100000 // the driver is one address
	if cfg.Sync == Lazy {
		c.Storage.Durability = broker.DurabilityUnsafeLazy
	}
	if cfg.MaxBytes > 0 {
		c.Storage.MaxBytes = broker.ByteSize(cfg.MaxBytes)
	}
	log := zerolog.New(os.Stderr).Level(zerolog.ErrorLevel)
	b, err := broker.New(c, "bench", log)
	if err != nil {
		return nil, nil, err
	}
	if err := b.Start(ctx); err != nil {
		return nil, nil, err
	}
	go func() {
		// As signet serve does; the end of the process ends this goroutine.
		if <-b.Done(); errors.Is(b.Err(), broker.ErrSpaceBack) {
			os.Exit(ExitAgain)
		}
	}()
	return &Address{URL: "tls://" + b.Addr().String(), CA: st.CA, Creds: st.Creds, Root: st.Root}, b.Shutdown, nil
}

package doctor

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/policy"
)

// Folder is what Offline found, for what compares a running broker with it. Fields
// that could not be read are empty.
type Folder struct {
	Config       broker.Config
	PolicyDigest string
}

// offline are the checks of a folder.
type offline struct{ *findings }

// Offline examines the configuration file and all that it names, with no broker. now
// is the time to judge expiry by.
func Offline(ctx context.Context, file string, getenv func(string) string, now time.Time, t Thresholds) ([]Finding, Folder) {
	var all findings
	f := offline{&all}
	cfg, err := broker.LoadConfig(file, getenv)
	out := Folder{Config: cfg}
	if err != nil {
		f.add(idConfig, file, Critical, "signet serve --config "+file+" --check", "%s", oneLine(err))
		if cfg.State == "" { // nothing could be read
			return all, out
		}
	} else {
		f.add(idConfig, file, OK, "", "valid")
		f.start(ctx, file, cfg)
	}
	out.PolicyDigest = f.policy(cfg.Policy)
	f.secrets(&cfg)
	f.keys(&cfg, file, now, t)
	f.recipients(&cfg, now, t)
	f.certificates(&cfg, file, now, t)
	f.volume(&cfg, t)
	f.durability(&cfg)
	f.fileLimit(&cfg)
	f.kernelClock()
	return all, out
}

// start reads everything that a start would.
func (f offline) start(ctx context.Context, file string, cfg broker.Config) {
	b, err := broker.New(cfg, "doctor", zerolog.Nop())
	if err == nil {
		err = b.Check(ctx)
	}
	if err != nil {
		f.add(idStart, file, Critical, "signet serve --config "+file+" --check", "a start would be refused: %s", oneLine(err))
		return
	}
	f.add(idStart, file, OK, "", "policy, schemas, keys and certificates are good")
}

func (f offline) policy(paths []string) (digest string) {
	if len(paths) == 0 {
		return "" // CONFIG_001 says so
	}
	object := strings.Join(paths, " ")
	bundle, err := policy.Load(paths)
	var set *policy.Set
	if err == nil {
		set, err = policy.Compile(bundle)
	}
	if err != nil {
		f.add(idPolicy, object, Critical, "signet policy check "+object, "%s", oneLine(err))
		return ""
	}
	f.add(idPolicy, object, OK, "", "valid, %d tenants, digest %.12s", len(set.Tenants()), set.Digest())
	return set.Digest()
}

// secrets looks at the modes of all files that hold one.
func (f offline) secrets(cfg *broker.Config) {
	files := []string{cfg.TLS.Key, cfg.Keys.Node}
	if cfg.Cluster != nil {
		files = append(files, cfg.Cluster.TLS.Key)
	}
	for _, file := range files {
		if file == "" {
			continue
		}
		info, err := os.Stat(file)
		switch {
		case err != nil:
			f.add(idSecretMode, file, Critical, "signet init "+filepath.Dir(filepath.Dir(file)), "%s", oneLine(err))
		case runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0:
			// The group may read a TLS key of root, as secrets are mounted: the start check
			// knows the exception, so this is a warning where that is well.
			s := Critical
			if info.Mode().Perm()&0o037 == 0 {
				s = Warning
			}
			f.add(idSecretMode, file, s, "chmod 600 "+file, "mode %04o: others than its owner can get at the secret", info.Mode().Perm())
		default:
			f.add(idSecretMode, file, OK, "", "mode %04o", info.Mode().Perm())
		}
	}
	if cfg.Keys.Keyring == "" {
		return
	}
	seed := filepath.Join(filepath.Dir(cfg.Keys.Keyring), "root.seed")
	switch _, err := os.Stat(seed); {
	case err == nil:
		f.add(idRootSeed, seed, Warning, "take "+seed+" offline; put it back for the run of signet init that renews the keyring",
			"who takes it can sign keyrings that every reader believes")
	case errors.Is(err, fs.ErrNotExist):
		f.add(idRootSeed, seed, OK, "", "not here")
	default:
		f.add(idRootSeed, seed, Unknown, "run this as the user of the broker", "%s", oneLine(err))
	}
}

func (f offline) durability(cfg *broker.Config) {
	if cfg.Storage.Durability == broker.DurabilityUnsafeLazy {
		f.add(idDurability, "", Critical, "remove storage.durability from the configuration and restart", "unsafe-lazy-sync: a power cut loses acknowledged events")
		return
	}
	f.add(idDurability, "", OK, "", "%s", cfg.Storage.Durability)
}

// filesPerClient is what one client costs in file descriptors: its socket and both
// ends of its connection to the embedded server. filesBeside is for all else.
const (
	filesPerClient = 3
	filesBeside    = 512
)

func (f offline) fileLimit(cfg *broker.Config) {
	limit, err := openFileLimit()
	if err != nil {
		f.add(idFileLimit, "", Unknown, "see the limit of the service: LIMIT_002", "%s", oneLine(err))
		return
	}
	need := uint64(max(cfg.Gate.MaxConnections, 0))*filesPerClient + filesBeside
	fd := f.add(idFileLimit, "", OK, "", "limit %d, %d connections may need %d", limit, cfg.Gate.MaxConnections, need)
	if limit < need {
		fd.Severity, fd.Fix = Warning, "LimitNOFILE= of the service (ulimit -n), or lower gate.maxConnections"
	}
	fd.measure(float64(limit), "", Pair{Warning: float64(need)})
	fd.Measure.Below = true
}

func (f offline) kernelClock() {
	synced, known := kernelClockSynced()
	switch {
	case !known:
		f.add(idClockKernel, "", OK, "", "the kernel does not tell")
	case !synced:
		f.add(idClockKernel, "", Warning, "run chrony, ntpd or systemd-timesyncd", "no time service has set the clock; recorded times and expiry depend on it")
	default:
		f.add(idClockKernel, "", OK, "", "synchronised")
	}
}

// oneLine joins the lines of an error, without names of our packages in front.
func oneLine(err error) string {
	lines := strings.Split(err.Error(), "\n")
	for i := range lines {
		lines[i] = strings.TrimPrefix(strings.TrimSpace(lines[i]), "broker: ")
	}
	const most = 600
	s := strings.Join(lines, "; ")
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}

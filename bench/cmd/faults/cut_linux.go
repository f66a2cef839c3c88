package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/signetbus/signet/bench"
)

// The cuts run in this program started again in a mount namespace of its own: when
// it ends, in whatever way, its mounts end with it, and a loop device made by
// mount ends with its last mount.
const (
	namespaceEnv = "SIGNET_FAULTS_NAMESPACE"
	cutImage     = 2 << 30 // bytes, sparse
)

func insideNamespace() bool { return os.Getenv(namespaceEnv) != "" }

// canCut says what is missing for power cuts.
func canCut() error {
	if os.Geteuid() != 0 {
		return errors.New("loop mounts need root")
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		return fmt.Errorf("no loop devices: %w", err)
	}
	for _, tool := range []string{"mkfs.ext4", "mount", "umount", "cp", "sync"} {
		if _, err := exec.LookPath(tool); err != nil {
			return err
		}
	}
	return nil
}

// inNamespace runs this program again with args, where it may mount.
func inNamespace(ctx context.Context, o options, args ...string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	c := exec.CommandContext(ctx, self, append(args, "-dir", o.dir, "-load", o.load.String(),
		"-encrypted="+strconv.FormatBool(o.encrypted), "-cluster="+strconv.FormatBool(o.cluster), "-quick="+strconv.FormatBool(o.quick),
		"-seed", strconv.FormatUint(o.seed, 10), "-signet", o.binary, "-limit", untilEnd(ctx).String())...)
	c.Env = append(os.Environ(), namespaceEnv+"=1")
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGTERM}
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = bootWait
	// Pdeathsig means the death of the thread that started the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return c.Run()
}

// untilEnd is what is left of the run.
func untilEnd(ctx context.Context) time.Duration {
	if end, ok := ctx.Deadline(); ok {
		return time.Until(end)
	}
	return time.Hour
}

// powerCuts cuts the power o.cuts times, and once more without the barrier to see the
// method detect a loss.
func powerCuts(ctx context.Context, o options) error {
	n := o.cuts
	row("cut", "under load", "acked", "total acked", "back after", "stored", "LOST")
	v, err := cutRun(ctx, n, o, "cut", bench.Durable)
	if err != nil {
		return fmt.Errorf("power cut: %w", err)
	}
	v.print("power cut", n)
	if err := v.err(); err != nil {
		return fmt.Errorf("power cut: %w", err)
	}
	v, err = cutRun(ctx, 1, o, "control", bench.Lazy)
	switch {
	case errors.Is(err, errNoRestart):
		fmt.Printf("control (unsafe-lazy-sync): the broker does not even start on what was left: %v\n", err)
		return nil
	case err != nil:
		return fmt.Errorf("control: %w", err)
	}
	v.print("control (unsafe-lazy-sync, must lose)", 1)
	if v.Lost == 0 {
		return errors.New("control: the power cut lost nothing without the barrier, so that the method proves nothing")
	}
	return nil
}

var errNoRestart = errors.New("no restart after the cut")

// cutRun loads a broker on a volume of its own and cuts its power n times.
func cutRun(ctx context.Context, n int, o options, name string, sync bench.Sync) (v *verdict, err error) {
	vol, err := newVolume(filepath.Join(o.dir, name), cutImage)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, vol.close()) }()
	b := &subject{cfg: bench.ServerConfig{
		Kind: bench.Signet, Sync: sync, Dir: filepath.Join(o.dir, name, "etc"), Store: vol.mount, Policy: policyWith("1GiB"),
		KeyFile: o.keyFile,
	}}
	defer b.kill() // before the volume goes
	begin := time.Now()
	if err := b.start(ctx); err != nil {
		return nil, err
	}
	l := newLedger()
	keep := &keeper{stop: make(chan struct{}), fault: make(chan error)}
	if sync == bench.Durable {
		if keep, err = newKeeper(ctx, b.Address, l); err != nil {
			return nil, err
		}
	}
	defer keep.close()
	for i := range n {
		before := l.acked()
		took, err := b.cycle(ctx, l, keep, o.load)
		if err != nil {
			return nil, fmt.Errorf("cut %d: %w", i+1, err)
		}
		if err := vol.cut(); err != nil {
			return nil, fmt.Errorf("cut %d: %w", i+1, err)
		}
		acked := l.acked()
		if err := b.start(ctx); err != nil {
			return nil, fmt.Errorf("cut %d: %w: %w", i+1, errNoRestart, err)
		}
		if i == n-1 {
			if err := keep.finish(ctx); err != nil {
				return nil, err
			}
		}
		if v, err = readBack(ctx, b.Address, l, begin, o.readers); err != nil {
			return nil, err
		}
		row(fmt.Sprint(i+1), took, acked-before, acked, b.startedIn, v.stored, v.Lost)
		if sync == bench.Durable && v.err() != nil {
			break
		}
	}
	if sync == bench.Durable && v.err() == nil {
		err = judgeLog(ctx, b.Address, "power cut", o.readers)
	}
	return v, errors.Join(err, unreadable(&b.cfg))
}

var bootField = regexp.MustCompile(`"boot":"[^"]*"`)

// newBoot makes the ledger of the broker say that it was written before the machine was
// started last, as after a power cut: pages that never reached the disk may be zero then.
// A ledger that the cut has taken is none.
func newBoot(ledger string) error {
	raw, err := os.ReadFile(ledger)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	body, _, _ := bytes.Cut(raw, []byte("\n"))
	body = bootField.ReplaceAll(body, []byte(`"boot":"before the cut"`))
	return os.WriteFile(ledger, fmt.Appendf(nil, "%s\n%x\n", body, sha256.Sum256(body)), 0o600)
}

// volume is an ext4 file system on a loop device over an image file.
type volume struct {
	dir, image, mount string
	copies            int
	mounted           bool
}

func newVolume(dir string, bytes int64) (*volume, error) {
	v := &volume{dir: dir, image: filepath.Join(dir, "0.img"), mount: filepath.Join(dir, "volume")}
	if err := os.MkdirAll(v.mount, 0o700); err != nil {
		return nil, err
	}
	f, err := os.Create(v.image)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Truncate(bytes), f.Close()); err != nil {
		return nil, err
	}
	if err := tool("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", v.image); err != nil {
		return nil, err
	}
	return v, v.attach()
}

// attach mounts the image. commit=300: the file system writes nothing back by
// itself within the run, so that only what was synced is there after a cut.
func (v *volume) attach() error {
	if err := tool("mount", "-o", "loop,commit=300", v.image, v.mount); err != nil {
		return err
	}
	v.mounted = true
	return nil
}

// cut is the power cut, after the kill of everything that used the volume. The
// image has what the device was told to store; what only the file system's memory
// had is not in it. The copy is the disk after the cut.
func (v *volume) cut() error {
	v.copies++
	after := filepath.Join(v.dir, strconv.Itoa(v.copies)+".img")
	if err := tool("cp", "--sparse=always", "--reflink=never", v.image, after); err != nil {
		return err
	}
	if err := v.detach(); err != nil {
		return err
	}
	if err := os.Remove(v.image); err != nil {
		return err
	}
	v.image = after
	if err := v.attach(); err != nil {
		return err
	}
	return newBoot(filepath.Join(v.mount, "signet", "integrity", "ledger.json"))
}

// detach unmounts; a killed process may need a moment to let go.
func (v *volume) detach() error {
	var err error
	for range 50 {
		if err = tool("umount", v.mount); err == nil {
			v.mounted = false
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return errors.Join(err, tool("umount", "-l", v.mount))
}

func (v *volume) close() error {
	var err error
	if v.mounted {
		err = v.detach()
	}
	return errors.Join(err, os.RemoveAll(v.dir))
}

func tool(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	return nil
}

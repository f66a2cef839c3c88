package doctor

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"github.com/signetbus/signet/broker"
)

// volume is what the system says of the file system under a path.
type volume struct {
	kind              string // name of the file system, or its number
	mount             string // mount point
	free, total       uint64 // bytes; free for this user
	inodes, allInodes uint64 // free, and all; all is 0 where there is no such limit
}

// kinds are file systems that do not keep what they acknowledge, or not for sure.
var kinds = map[string]struct {
	severity Severity
	what     string
}{
	"tmpfs":     {Critical, "it is memory: a restart of the machine loses everything"},
	"ramfs":     {Critical, "it is memory: a restart of the machine loses everything"},
	"nfs":       {Critical, "a network file system: locks and syncs do not hold what the store needs"},
	"cifs":      {Critical, "a network file system: locks and syncs do not hold what the store needs"},
	"smb2":      {Critical, "a network file system: locks and syncs do not hold what the store needs"},
	"9p":        {Warning, "a file system of another machine: whether its syncs reach the disk is unknown; the broker syncs each write"},
	"fuse":      {Warning, "many of its kind do nothing when asked to sync; the broker syncs each write"},
	"overlayfs": {Warning, "the writable layer of a container: it goes with the container"},
}

func (f offline) volume(cfg *broker.Config, t Thresholds) {
	dir := cfg.State
	if dir == "" {
		return // CONFIG_001 says so
	}
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f.add(idState, dir, Warning, "start the broker, or mount the volume that is meant to be here", "it is not there: a start makes an empty one")
		if dir = existing(dir); dir == "" {
			return
		}
	case err != nil:
		f.add(idState, dir, Critical, "run this as the user of the broker", "%s", oneLine(err))
		return
	case !info.IsDir():
		f.add(idState, dir, Critical, "set state to a folder", "not a folder")
		return
	case runtime.GOOS != "windows" && info.Mode().Perm()&0o022 != 0:
		f.add(idState, dir, Critical, "chmod 700 "+dir, "mode %04o: others can change stored events", info.Mode().Perm())
	case runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0:
		f.add(idState, dir, Warning, "chmod 700 "+dir, "mode %04o: others can look into stored events", info.Mode().Perm())
	default:
		f.add(idState, dir, OK, "", "mode %04o", info.Mode().Perm())
	}
	v, err := volumeOf(dir)
	if err != nil {
		f.add(idDiskFree, dir, Unknown, "df "+dir, "%s", oneLine(err))
		return
	}
	f.room(dir, v, storedUnder(cfg.State), uint64(cfg.Storage.MaxBytes), t)
}

// room judges a volume. stored is what the state already takes of it.
func (f offline) room(dir string, v volume, stored, limit uint64, t Thresholds) {
	percent := 100 * float64(v.free) / float64(max(v.total, 1))
	f.below(idDiskFree, dir, percent, "%", t.DiskFree, "free space on "+v.mount+", or make the volume larger", "%.1f%% free: %s of %s", percent, bytesText(v.free), bytesText(v.total))
	need := limit - min(stored, limit)
	room := f.add(idDiskRoom, dir, OK, "", "%s free, the streams may still grow by %s", bytesText(v.free), bytesText(need))
	if v.free < need {
		room.Severity, room.Fix = Warning, "make the volume larger, or lower storage.maxBytes: a full stream recovers by itself, a full volume does not"
	}
	room.measure(float64(v.free), "B", Pair{Warning: float64(need)})
	room.Measure.Below = true
	if k, bad := kinds[v.kind]; bad {
		f.add(idDiskType, dir, k.severity, "put state on a local volume with ext4, xfs or btrfs", "%s: %s", v.kind, k.what)
	} else {
		f.add(idDiskType, dir, OK, "", "%s", v.kind)
	}
	if v.mount == "/" {
		f.add(idDiskOwn, dir, Warning, "mount a volume of its own at "+dir, "it shares the volume of the system: logs and others can fill it")
	} else {
		f.add(idDiskOwn, dir, OK, "", "mounted at %s", v.mount)
	}
	if v.allInodes > 0 {
		percent := 100 * float64(v.inodes) / float64(v.allInodes)
		f.below(idInodes, dir, percent, "%", t.DiskFree, "remove files on "+v.mount, "%.1f%% of the inodes are free", percent)
	}
}

// storedUnder is the sum of the files under dir. What cannot be read counts nothing.
func storedUnder(dir string) uint64 {
	var sum uint64
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error { // it returns nil only
		if err != nil || !d.Type().IsRegular() {
			return nil //nolint:nilerr // files go while we look
		}
		if info, err := d.Info(); err == nil {
			sum += uint64(info.Size())
		}
		return nil
	})
	return sum
}

// existing returns the nearest folder above path that is there.
func existing(path string) string {
	for {
		up := filepath.Dir(path)
		if up == path {
			return ""
		}
		if _, err := os.Stat(up); err == nil {
			return up
		}
		path = up
	}
}

func bytesText(n uint64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	v, i := float64(n), 0
	for v >= 1024 && i < len(units)-1 {
		v, i = v/1024, i+1
	}
	return strconv.FormatFloat(v, 'f', min(i, 1), 64) + " " + units[i]
}

func number(n uint64) string { return strconv.FormatUint(n, 10) }

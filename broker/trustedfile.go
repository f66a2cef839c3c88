package broker

import (
	"fmt"
	"io"
	"os"
)

// readTrusted reads a file that says whom to believe. One that the group or others may
// write is refused: they would be whoever they like. The mode is that of what was opened, not
// of what the name may be by now.
func readTrusted(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return nil, fmt.Errorf("%s: the group or others may write it (mode %04o): chmod go-w", name, mode)
	}
	return io.ReadAll(f)
}

//go:build !linux

package store

func volumeSync(string) (sync, release func() error, err error) {
	return nil, nil, ErrUnsupported
}

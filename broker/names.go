package broker

import (
	"errors"
	"io/fs"
	"os"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/signing"
)

// CheckNames reports the names in a policy that the configuration gives to nobody who could
// vouch for them, as a start with that policy would. It reads the files of
// authentication.
//
// Errors: joined *policy.Fault; what is wrong with those files.
func CheckNames(cfg *Config, set *policy.Set) error {
	t, err := loadTrust(cfg, nil)
	if err != nil {
		return err
	}
	return t.check(set)
}

// FilesHold reports whether the next start of the broker with this configuration reads its policy
// files: it does not where a version was applied. What it says of a broker that runs may be
// seconds old.
func FilesHold(cfg *Config) (bool, error) {
	doc, err := os.ReadFile(appliedFile(cfg))
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	v, err := signing.PeekPolicy(doc)
	return err == nil && v.Digest == "", err
}

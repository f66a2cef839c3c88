package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/signetbus/signet/broker/brokertest"
)

// noUpgrade as a revision leaves the upgrade out.
const noUpgrade = "none"

// clusterUpgrade takes a running cluster from an earlier build to this one, back, and
// to this one again, node by node and under load.
func clusterUpgrade(ctx context.Context, o options) error {
	rev := o.upgrade
	if rev == "" {
		var err error
		if rev, err = lastRelease(ctx); err != nil {
			return err
		}
	}
	if rev == "" {
		fmt.Println("upgrade: there is no release before this one yet: not tested (-upgrade-from REV names a revision)")
		return nil
	}
	fmt.Printf("upgrade of a cluster of %d from %s, seed %d\n", clusterNodes, rev, o.seed)
	old, err := buildRevision(ctx, rev, filepath.Join(o.dir, "old"))
	if err != nil {
		return err
	}
	present := o.binary
	if present == "" {
		present = filepath.Join(o.dir, "signet")
		if err := brokertest.BuildSignet(ctx, present); err != nil {
			return err
		}
	}
	o.binary = old
	r, err := newClusterRun(ctx, o, "upgrade", ground{log: true})
	if err != nil {
		return err
	}
	defer r.close()
	wide("fault", "node", "whole after", "nobody acked", "slowest", "acked", "total acked")
	steps := []struct{ kind, binary string }{{"upgrade", present}, {"roll-back", old}, {"upgrade again", present}}
	if o.quick {
		steps = steps[:2]
	}
	for _, step := range steps {
		if err = replaceAll(ctx, r, step.kind, step.binary); err != nil {
			break
		}
	}
	if err == nil {
		err = r.judge(ctx, "upgrade from "+rev)
	}
	if err != nil {
		r.logs()
	}
	return err
}

// replaceAll restarts one node after the other as another binary.
func replaceAll(ctx context.Context, r *clusterRun, kind, binary string) error {
	for _, i := range r.rnd.Perm(r.c.Len()) {
		if err := r.strike(ctx, kind, r.c.Name(i), func(ctx context.Context) error {
			term, cancel := context.WithTimeout(ctx, termWait)
			defer cancel()
			if err := r.c.Term(term, i); err != nil {
				return err
			}
			r.launch[i].binary = binary
			return r.c.Start(ctx, i)
		}); err != nil {
			return err
		}
	}
	return nil
}

// lastRelease is the newest tag before HEAD; empty if there is none, or no history.
func lastRelease(ctx context.Context) (string, error) {
	var exit *exec.ExitError
	tag, err := git(ctx, "describe", "--tags", "--abbrev=0", "HEAD^")
	switch {
	case err == nil:
		return strings.TrimSpace(string(tag)), nil
	case errors.As(err, &exit), errors.Is(err, exec.ErrNotFound):
		return "", nil // no tag, no parent, no repository or no git: nothing to upgrade from
	}
	return "", err
}

func git(ctx context.Context, args ...string) ([]byte, error) {
	var said bytes.Buffer
	c := exec.CommandContext(ctx, "git", args...)
	c.Stderr = &said
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(said.String()))
	}
	return out, nil
}

// buildRevision builds the signet of a revision from its files in dir.
func buildRevision(ctx context.Context, rev, dir string) (string, error) {
	top, err := git(ctx, "rev-parse", "--show-toplevel")
	if err != nil {
		return "", err
	}
	// Else a revision that begins with a dash would be an option.
	commit, err := git(ctx, "rev-parse", "--verify", "--end-of-options", rev+"^{commit}")
	if err != nil {
		return "", fmt.Errorf("-upgrade-from %s: %w", rev, err)
	}
	packed, err := git(ctx, "-C", strings.TrimSpace(string(top)), "archive", "--format=tar", strings.TrimSpace(string(commit)))
	if err != nil {
		return "", err
	}
	if err := unpack(packed, filepath.Join(dir, "source")); err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "signet")
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, "./cmd/signet")
	build.Dir = filepath.Join(dir, "source")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w: %s", rev, err, out)
	}
	return binary, nil
}

// unpack writes the files of an archive below dir.
func unpack(packed []byte, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for read := tar.NewReader(bytes.NewReader(packed)); ; {
		h, err := read.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch h.Typeflag {
		case tar.TypeDir:
			err = root.MkdirAll(strings.TrimSuffix(h.Name, "/"), 0o700)
		case tar.TypeReg:
			var data []byte
			if data, err = io.ReadAll(read); err == nil {
				err = root.WriteFile(h.Name, data, 0o600)
			}
		}
		if err != nil {
			return err
		}
	}
}

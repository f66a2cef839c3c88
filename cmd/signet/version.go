package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the build: -ldflags "-X main.version=...".
var version = "dev"

// buildVersion is version, or what the Go tool knows about the build.
func buildVersion() (v, revision string) {
	v = version
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v, ""
	}
	if m := info.Main.Version; v == "dev" && m != "" && m != "(devel)" {
		v = m
	}
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			revision += "+modified"
		}
	}
	return v, revision
}

// module is one dependency in the binary.
type module struct {
	Path    string `json:"path"`
	Version string `json:"version"`
	Sum     string `json:"sum,omitempty"`
}

func modules() []module {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return nil
	}
	var out []module
	for _, d := range info.Deps {
		out = append(out, module{d.Path, d.Version, d.Sum})
	}
	return out
}

func versionCommand(a *app) *cobra.Command {
	var deps bool
	cmd := &cobra.Command{
		Use: "version", Short: "print the version; --deps lists what is built in", Args: cobra.NoArgs,
		Example: "  signet version\n  signet version --deps -o json",
		RunE: a.verb(func(context.Context, []string) error {
			v, revision := buildVersion()
			out := struct {
				Version  string   `json:"version"`
				Revision string   `json:"revision,omitempty"`
				Go       string   `json:"go"`
				Platform string   `json:"platform"`
				Deps     []module `json:"deps,omitempty"`
			}{Version: v, Revision: revision, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
			if deps {
				out.Deps = modules()
			}
			if a.jsonOut() {
				return a.printJSON(out)
			}
			fmt.Fprintf(a.stdout, "signet %s (%s %s)\n", out.Version, out.Go, out.Platform)
			facts(a.stdout, "  ", "revision", revision)
			g := newGrid(a.stdout)
			for _, m := range out.Deps {
				g.row("  "+m.Path, m.Version)
			}
			g.flush()
			return nil
		}),
	}
	cmd.Flags().BoolVar(&deps, "deps", false, "list the modules in this binary")
	return cmd
}

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/signetbus/signet/broker"
)

// nodeFolders returns the nodes that signet init --cluster made in dir.
func nodeFolders(dir string) []string {
	files, _ := filepath.Glob(filepath.Join(dir, "nodes", "*", "signet.yaml")) // fails on a bad pattern only
	names := make([]string, len(files))
	for i, file := range files {
		names[i] = filepath.Base(filepath.Dir(file))
	}
	return names
}

// clusterFolder takes a folder that is new, or that of the same cluster, and reports
// whether it is one. Another name or other nodes would only add to what is there.
func clusterFolder(dir, cluster string, nodes []broker.ClusterNode) (existed bool, err error) {
	if _, err := os.Stat(filepath.Join(dir, "signet.yaml")); err == nil {
		return false, &usageError{msg: dir + " is the state of a broker by itself", fix: "choose an empty or a new folder"}
	}
	held := nodeFolders(dir)
	if len(held) == 0 {
		return false, stateFolder(dir)
	}
	given := make([]string, len(nodes))
	for i := range nodes {
		given[i] = nodes[i].Name
	}
	slices.Sort(given)
	if !slices.Equal(held, given) {
		return false, &usageError{msg: fmt.Sprintf("%s has the nodes %v, not %v", dir, held, given), fix: "give --cluster and --node as at the first run"}
	}
	for _, name := range held {
		cfg, err := broker.LoadConfig(filepath.Join(dir, "nodes", name, "signet.yaml"), nil)
		if err != nil {
			return false, err
		}
		if cfg.Cluster == nil || cfg.Cluster.Name != cluster {
			return false, &usageError{msg: fmt.Sprintf("node %s in %s is not one of the cluster %q", name, dir, cluster), fix: "give --cluster and --node as at the first run"}
		}
	}
	return true, nil
}

// offline words the fault of a run for which a secret is missing that was taken away, as
// it should be.
func offline(err error) error {
	return &usageError{msg: err.Error(), fix: "put that file back for this run, then take it away again"}
}

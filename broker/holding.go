package broker

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/signetbus/signet/broker/internal/embed"
	"github.com/signetbus/signet/internal/durablefile"
)

// holdingFile, in the state folder, is what readHolding reads. It is written before the
// store that it speaks of is made.
const holdingFile = "cluster-store.json"

// holding says what a node has of what the cluster has stored, and so what its vote is
// worth. A node that lost its volume has forgotten what it acknowledged: with the votes
// of such nodes alone a cluster would go on without it.
type holding string

const (
	// holdsNothing: there is no store. It may not be made before mayStart says so.
	holdsNothing holding = "empty"
	// holdsForming: the store was made in the first start of a cluster, of which this
	// node has seen no end. It has forgotten nothing.
	holdsForming holding = "forming"
	// holdsFormed: the same, and all streams are made. Nobody lets clients in before all
	// nodes are there.
	holdsFormed holding = "formed"
	// holdsFilling: the store was made in place of a lost one, or for a new node, and has
	// not got everything from the others yet.
	holdsFilling holding = "filling"
	// holdsAll: the node has forgotten nothing.
	holdsAll holding = "kept"
)

// remembers reports whether the node has everything that it ever acknowledged.
func (h holding) remembers() bool {
	return h == holdsForming || h == holdsFormed || h == holdsAll
}

// readHolding looks at a state folder. The store itself has the first word: a note that
// survived it says nothing. A store without a note is of a release before notes.
func readHolding(dir string) (holding, error) {
	there, err := embed.HasMetaGroup(dir)
	if err != nil {
		return "", fmt.Errorf("broker: %w", err)
	}
	if !there {
		return holdsNothing, nil
	}
	file := filepath.Join(dir, holdingFile)
	data, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return holdsAll, nil
	}
	if err != nil {
		return "", fmt.Errorf("broker: %w", err)
	}
	var note struct {
		Store holding `json:"store"`
	}
	if err := json.Unmarshal(data, &note); err != nil {
		return "", fmt.Errorf("broker: %s: %w", file, err)
	}
	switch note.Store {
	case holdsForming, holdsFormed, holdsFilling, holdsAll:
		return note.Store, nil
	}
	return "", fmt.Errorf("broker: %s says %q, which this release does not know: start the release that wrote it", file, note.Store)
}

func writeHolding(dir string, h holding) error {
	data, err := json.Marshal(map[string]holding{"store": h})
	if err != nil {
		return fmt.Errorf("broker: %w", err)
	}
	if err := durablefile.Replace(filepath.Join(dir, holdingFile), data, 0o600); err != nil {
		return fmt.Errorf("broker: %w", err)
	}
	return nil
}

// ErrStoreWaits: a node does not make its store yet. The text says what it waits for and
// what gets out of it.
var ErrStoreWaits = errors.New("broker: the store is not started")

// mayStart decides whether node self, which holds own, may start its store, and as what.
// nodes are all of the configuration, heard are the answers of one round of questions. It
// is pure.
//
// A node that has forgotten something starts only when the node that leads the cluster
// lets it in (letIn): a leader cannot be elected by such nodes. Without a leader they
// may start when all nodes are there and none of them has anything: this is the first
// start of a cluster.
func mayStart(self string, own holding, nodes []string, heard []nodeInfo) (holding, error) {
	if own.remembers() {
		return own, nil
	}
	by := map[holding][]string{}
	silent := slices.DeleteFunc(slices.Clone(nodes), func(name string) bool { return name == self })
	for i := range heard {
		h := &heard[i]
		if h.LetsIn == self && h.Store.remembers() {
			return holdsFilling, nil
		}
		by[h.Store] = append(by[h.Store], h.Node)
		silent = slices.DeleteFunc(silent, func(name string) bool { return name == h.Node })
	}
	if fresh := len(by[holdsNothing]) + len(by[holdsForming]); own == holdsNothing && fresh == len(nodes)-1 && len(silent) == 0 {
		return holdsForming, nil
	}
	return "", waitsFor(own, by, silent)
}

// tooFew says what node self waits for when it has not heard of enough others to decide
// by what they hold.
func tooFew(self string, own holding, nodes []string, heard []nodeInfo) error {
	if _, err := mayStart(self, own, nodes, heard); err != nil {
		return err
	}
	return fmt.Errorf("%w: %d of the %d other nodes answer, too few to hear of all tenants; start the others", ErrStoreWaits, len(heard), len(nodes)-1)
}

// waitsFor says why a store is not started.
func waitsFor(own holding, by map[holding][]string, silent []string) error {
	kept := slices.Sorted(slices.Values(slices.Concat(by[holdsAll], by[holdsFormed], by[""])))
	lacking := slices.Sorted(slices.Values(slices.Concat(by[holdsNothing], by[holdsFilling])))
	what := "is empty"
	if own == holdsFilling {
		what = "was not filled yet"
	}
	list := fmt.Sprintf("with a store: %v, without: %v, silent: %v", append(kept, by[holdsForming]...), lacking, silent)
	switch {
	case len(kept) > 0:
		return fmt.Errorf("%w: it %s, and no node that has its store leads the cluster and lets this one in now (%s); "+
			"start all nodes that still have their volumes, and wait; if they are too few to elect a leader, and that for good, run on the machine of one of them: "+
			"signet cluster rescue --config signet.yaml --i-understand --lost NAME, with a --lost for each node whose volume is lost", ErrStoreWaits, what, list)
	case own == holdsNothing && len(by[holdsFilling]) == 0:
		return fmt.Errorf("%w: it %s, and the first start of a cluster needs all nodes (%s); start the others", ErrStoreWaits, what, list)
	}
	return fmt.Errorf("%w: it %s, and no node that answers has a whole one (%s); start those that do, or put their volumes back; "+
		"if there is none left: empty the state folders of all nodes, start them, and restore a backup", ErrStoreWaits, what, list)
}

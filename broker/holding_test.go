package broker

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/signetbus/signet/broker/internal/embed"
)

func answerOf(name string, store holding, phase string) nodeInfo {
	return nodeInfo{Node: name, Store: store, Phase: phase, Current: phase == "ready"}
}

func TestMayStart(t *testing.T) {
	three, five := []string{"n1", "n2", "n3"}, []string{"n1", "n2", "n3", "n4", "n5"}
	let := func(i nodeInfo, name string) nodeInfo { i.LetsIn = name; return i }
	tests := []struct {
		name  string
		own   holding
		nodes []string
		heard []nodeInfo
		as    holding
		text  string // of the refusal
	}{
		{"a store goes on alone", holdsAll, three, nil, holdsAll, ""},
		{"a store that forms goes on alone", holdsForming, three, nil, holdsForming, ""},
		{"the first start", holdsNothing, three, []nodeInfo{answerOf("n2", holdsNothing, "waiting"), answerOf("n3", holdsNothing, "waiting")}, holdsForming, ""},
		{"the first start, others are ahead", holdsNothing, three, []nodeInfo{answerOf("n2", holdsForming, "starting"), answerOf("n3", holdsNothing, "waiting")}, holdsForming, ""},
		{"the first start, one is missing", holdsNothing, three, []nodeInfo{answerOf("n2", holdsNothing, "waiting")}, "", "the first start of a cluster needs all nodes"},
		{"two of five are missing", holdsNothing, five, []nodeInfo{answerOf("n2", holdsNothing, "waiting"), answerOf("n3", holdsNothing, "waiting")}, "", "silent: [n4 n5]"},
		{"one other has all", holdsNothing, three, []nodeInfo{answerOf("n2", holdsNothing, "waiting"), answerOf("n3", holdsAll, "starting")}, "", "signet cluster rescue"},
		{"one other has ended the first start", holdsNothing, three, []nodeInfo{answerOf("n2", holdsNothing, "waiting"), answerOf("n3", holdsFormed, "starting")}, "", "with a store: [n3]"},
		{"all others have all, and nobody leads", holdsNothing, three, []nodeInfo{answerOf("n2", holdsAll, "starting"), answerOf("n3", holdsAll, "starting")}, "", "start all nodes that still have their volumes, and wait"},
		{"the leader lets it in", holdsNothing, three, []nodeInfo{let(answerOf("n2", holdsAll, "ready"), "n1"), answerOf("n3", holdsAll, "ready")}, holdsFilling, ""},
		{"the leader lets it in again", holdsFilling, three, []nodeInfo{let(answerOf("n2", holdsAll, "ready"), "n1")}, holdsFilling, ""},
		{"the leader lets another in", holdsNothing, three, []nodeInfo{let(answerOf("n2", holdsAll, "ready"), "n3"), answerOf("n3", holdsNothing, "waiting")}, "", "lets this one in now"},
		{"one without a store lets nobody in", holdsNothing, three, []nodeInfo{let(answerOf("n2", holdsFilling, "ready"), "n1"), answerOf("n3", holdsAll, "waiting")}, "", "without: [n2]"},
		{"nobody has a whole store", holdsNothing, three, []nodeInfo{answerOf("n2", holdsFilling, "waiting"), answerOf("n3", holdsNothing, "waiting")}, "", "empty the state folders of all nodes"},
		{"not filled, and nobody has anything", holdsFilling, three, []nodeInfo{answerOf("n2", holdsNothing, "waiting"), answerOf("n3", holdsNothing, "waiting")}, "", "was not filled yet"},
		{"a release that does not tell", holdsNothing, three, []nodeInfo{answerOf("n2", "", "ready"), answerOf("n3", holdsNothing, "waiting")}, "", "with a store: [n2]"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			as, err := mayStart("n1", tc.own, tc.nodes, tc.heard)
			if as != tc.as || (err == nil) != (tc.text == "") || err != nil && (!errors.Is(err, ErrStoreWaits) || !strings.Contains(err.Error(), tc.text)) {
				t.Errorf("as %q, %v; want %q, %q", as, err, tc.as, tc.text)
			}
		})
	}
}

// TestReadHolding: what is on the disk has the first word, then the note.
func TestReadHolding(t *testing.T) {
	tests := []struct {
		name, note string
		meta       bool
		want       holding
		fails      bool
	}{
		{name: "nothing", want: holdsNothing},
		{name: "a note survived its store", note: `{"store":"kept"}`, want: holdsNothing},
		{name: "a store of an older release", meta: true, want: holdsAll},
		{name: "filled", note: `{"store":"kept"}`, meta: true, want: holdsAll},
		{name: "not filled", note: `{"store":"filling"}`, meta: true, want: holdsFilling},
		{name: "not formed", note: `{"store":"forming"}`, meta: true, want: holdsForming},
		{name: "of a newer release", note: `{"store":"mirrored"}`, meta: true, fails: true},
		{name: "torn", note: `{"sto`, meta: true, fails: true},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			group := filepath.Join(dir, "jetstream", "SYS", "_js_", "_meta_")
			if tc.meta {
				if err := errors.Join(os.MkdirAll(group, 0o700), os.WriteFile(filepath.Join(group, "peers.idx"), nil, 0o600)); err != nil {
					t.Fatal(err)
				}
			} else if err := os.MkdirAll(filepath.Join(dir, "jetstream", "shop", "streams", "ORDERS"), 0o700); err != nil {
				t.Fatal(err)
			}
			if tc.note != "" {
				if err := os.WriteFile(filepath.Join(dir, holdingFile), []byte(tc.note), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, err := readHolding(dir)
			if got != tc.want || (err != nil) != tc.fails {
				t.Errorf("%q, %v; want %q", got, err, tc.want)
			}
		})
	}
}

// TestLetIn: the leader lets in one node after the other.
func TestLetIn(t *testing.T) {
	began := time.Now()
	running := func(name string, current bool) nodeInfo {
		return nodeInfo{Node: name, Store: holdsFilling, Phase: "starting", Current: current}
	}
	waits := func(name string) nodeInfo { return answerOf(name, holdsNothing, phaseWaiting) }
	tests := []struct {
		name   string
		last   string // let in before
		ago    time.Duration
		most   int
		others []nodeInfo
		want   string
	}{
		{"nobody else", "", 0, 1, []nodeInfo{waits("n3")}, "n3"},
		{"asks again", "n3", time.Second, 1, []nodeInfo{running("n2", false)}, "n3"},
		{"another was let in just now", "n2", time.Second, 2, nil, "n2"},
		{"another is on its way", "n2", 10 * time.Second, 2, []nodeInfo{waits("n3")}, "n2"},
		{"another still waits, and asks no more", "n2", 10 * time.Second, 2, []nodeInfo{waits("n2"), waits("n3")}, "n2"},
		{"another never came", "n2", letFor, 1, []nodeInfo{waits("n3")}, "n3"},
		{"another has not joined", "n2", 10 * time.Second, 2, []nodeInfo{running("n2", false)}, "n2"},
		{"another has not joined for long", "n2", time.Hour, 2, []nodeInfo{running("n2", false)}, "n2"},
		{"another is filled, one at a time", "n2", time.Hour, 1, []nodeInfo{running("n2", true)}, "n2"},
		{"another is filled, two at a time", "n2", 10 * time.Second, 2, []nodeInfo{running("n2", true)}, "n3"},
		{"two others are filled", "n2", time.Hour, 2, []nodeInfo{running("n2", true), running("n4", true)}, "n2"},
		{"another is done", "n2", 10 * time.Second, 1, []nodeInfo{answerOf("n2", holdsAll, "ready")}, "n3"},
		{"the last leader let one in", "", 0, 1, []nodeInfo{running("n4", false)}, "n4"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			l := letIn{name: tc.last, at: began.Add(-tc.ago)}
			if got := l.turn("n3", tc.most, began, func() []nodeInfo { return tc.others }); got != tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
}

// TestGivesWay: a member of the log comes before a node that was removed from it.
func TestGivesWay(t *testing.T) {
	members := []embed.ClusterPeer{{Name: "n2"}, {Name: "n4"}}
	waits, fills := answerOf("n2", holdsNothing, phaseWaiting), answerOf("n4", holdsFilling, "ready")
	for _, tc := range []struct {
		name, asker, want string
		others            []nodeInfo
	}{
		{"a member waits", "n3", "n2", []nodeInfo{waits, fills}},
		{"a member is being filled", "n3", "", []nodeInfo{fills}},
		{"a member that has its store starts", "n3", "", []nodeInfo{answerOf("n2", holdsAll, phaseWaiting)}},
		{"another was removed, too", "n3", "", []nodeInfo{answerOf("n5", holdsNothing, phaseWaiting)}},
		{"the member asks", "n2", "", []nodeInfo{waits, answerOf("n3", holdsNothing, phaseWaiting)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := givesWay(tc.asker, members, func() []nodeInfo { return tc.others }); got != tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
}

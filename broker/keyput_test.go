package broker

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing/keyring"
)

// TestPutIsToldAsItIs: a keyring that the stream or a node has comes to the others, so
// that it is not called refused.
func TestPutIsToldAsItIs(t *testing.T) {
	gone := map[string]string{"n3": "no responders"}
	older := fmt.Errorf("%w: version 1 offered, 2 in use", keyring.ErrRollback)
	for _, tt := range []struct {
		name    string
		kept    bool
		inForce []string
		faults  map[string]string
		here    error
		refused bool
		want    []string // in force
		waiting []string
	}{
		{"everywhere", true, []string{"n3", "n2"}, map[string]string{}, nil, false, []string{"n1", "n2", "n3"}, nil},
		{"one is away", true, []string{"n2"}, gone, nil, false, []string{"n1", "n2"}, []string{"n3"}},
		{"no quorum", false, nil, map[string]string{"n2": "x", "n3": "y"}, nil, false, []string{"n1"}, []string{"n2", "n3"}},
		{"in force, and the routes were not judged", true, nil, map[string]string{}, fmt.Errorf("%w x", errInForce), false, []string{"n1"}, nil},
		{"kept, and not here", true, nil, gone, ErrNotReady, false, nil, []string{"n1", "n3"}},
		{"at another node, and not here", false, []string{"n2"}, gone, ErrNotReady, false, []string{"n2"}, []string{"n1", "n3"}},
		{"nowhere", false, nil, gone, older, true, nil, nil},
		{"nowhere, for this node stops", false, nil, gone, ErrNotReady, true, nil, nil},
	} {
		out, err := tellPut("n1", tt.kept, tt.inForce, tt.faults, tt.here)
		if (err != nil) != tt.refused {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if !slices.Equal(out.InForce, tt.want) || !slices.Equal(out.Waiting, tt.waiting) || out.Kept != (tt.kept && !tt.refused) {
			t.Errorf("%s: %+v, want %v and %v", tt.name, out, tt.want, tt.waiting)
		}
		for _, node := range out.Waiting {
			if out.Faults[node] == "" {
				t.Errorf("%s: nothing is said of %s", tt.name, node)
			}
		}
	}
	var r *wire.Refusal
	if _, err := tellPut("n1", false, nil, nil, ErrNotReady); !errors.As(err, &r) || r.Code != wire.CodeUnavailable {
		t.Errorf("a node that stops: %v", err)
	}
}

// TestKeyringFitsEveryMessage: a keyring of the largest size goes into each message of
// the broker, however little clients may send.
func TestKeyringFitsEveryMessage(t *testing.T) {
	const around = 16 << 10 // the rest of an answer
	if n := base64.StdEncoding.EncodedLen(keyring.MaxDocumentBytes) + around; serverPayload(1024) < n {
		t.Errorf("the server takes %d bytes, want %d", serverPayload(1024), n)
	}
}

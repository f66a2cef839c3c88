package admin

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/signing/keyring"
)

// Caller sends one request. *client.Client is one.
type Caller interface {
	API(ctx context.Context, area, verb string, request, result any) error
}

var _ Caller = (*client.Client)(nil)

// MaxWait is the longest that Refusals waits on the broker for one request.
const MaxWait = adminapi.MaxWaitMs * time.Millisecond

// waitMargin is what the answer to a waiting request may take beyond the wait.
const waitMargin = 5 * time.Second

// API asks one broker.
type API struct{ c Caller }

// New returns an API over c, usually a *client.Client, which stays the caller's
// to close.
func New(c Caller) *API { return &API{c: c} }

func call[T any](ctx context.Context, a *API, subject string, request any) (*T, error) {
	area, verb, ok := adminapi.Split(subject)
	if !ok {
		return nil, fmt.Errorf("admin: %q is not an admin subject", subject)
	}
	var result T
	if err := a.c.API(ctx, area, verb, request, &result); err != nil {
		return nil, err
	}
	return &result, nil
}

// KeyRing returns the signed keyring. It needs no grant. Verify the document
// against a pinned root before you trust it: keyring.Parse.
func (a *API) KeyRing(ctx context.Context) (*KeyRing, error) {
	return call[KeyRing](ctx, a, adminapi.SubjectKeysRing, nil)
}

// Keys returns the keys as the broker has them.
func (a *API) Keys(ctx context.Context) (*KeyList, error) {
	return call[KeyList](ctx, a, adminapi.SubjectKeysLs, nil)
}

// PutKeys brings a new version of the keyring, signed by the root key of the broker, to
// all nodes and to the readers that are connected. cutOff names the nodes that are meant
// to lose their last valid key. A result says who has it and who waits for it; to call
// again with the same document is harmless.
//
// Errors: client.ErrTooLarge for a document over keyring.MaxDocumentBytes, and for one
// that is larger than gate.maxPayload of the broker lets a client send;
// client.ErrConflict says what is wrong with it: another root key, an old
// version, an expiry that is over, keys that must not go; client.ErrUnavailable while
// the broker starts or stops. After any of them no node has it; after a time-out or a lost
// connection some may: call again.
func (a *API) PutKeys(ctx context.Context, document []byte, cutOff ...string) (*KeysPut, error) {
	if n := len(document); n > keyring.MaxDocumentBytes {
		return nil, fmt.Errorf("admin: %w: the keyring has %d bytes, the limit is %d", client.ErrTooLarge, n, keyring.MaxDocumentBytes)
	}
	put, err := call[KeysPut](ctx, a, adminapi.SubjectKeysPut, adminapi.KeysPutRequest{Document: document, CutOff: cutOff})
	if errors.Is(err, client.ErrTooLarge) {
		return nil, fmt.Errorf("admin: the keyring of %d bytes, %d in the request, is larger than gate.maxPayload lets a client send: raise that, or bring the keyring to each node as a file: %w",
			len(document), base64.StdEncoding.EncodedLen(len(document)), err)
	}
	return put, err
}

// Status returns one page on the broker.
func (a *API) Status(ctx context.Context) (*Status, error) {
	return call[Status](ctx, a, adminapi.SubjectStatusGet, nil)
}

// Consumers returns the consumers of the caller's tenant, those with the most to do
// first: limit of them, DefaultListLimit for 0.
func (a *API) Consumers(ctx context.Context, limit int) (*ConsumerList, error) {
	return call[ConsumerList](ctx, a, adminapi.SubjectStatusConsumers, adminapi.StatusConsumersRequest{Limit: limit})
}

// Throttled says who of the caller's tenant was refused because of a limit in the last
// minutes, by which rule and at which node, most refusals first.
func Throttled(ctx context.Context, a *API) (*ThrottleList, error) {
	return call[ThrottleList](ctx, a, adminapi.SubjectStatusThrottled, nil)
}

// PolicyCheck says whether the files are a valid bundle, and if not, why. Nothing
// is applied. All files together may have MaxBundleBytes.
func (a *API) PolicyCheck(ctx context.Context, files ...PolicyFile) (*PolicyCheck, error) {
	size := 0
	for _, f := range files {
		size += len(f.Name) + len(f.Text)
	}
	if size > MaxBundleBytes {
		return nil, fmt.Errorf("admin: %w: the bundle has %d bytes, the limit is %d", client.ErrTooLarge, size, MaxBundleBytes)
	}
	return call[PolicyCheck](ctx, a, adminapi.SubjectPolicyCheck, adminapi.PolicyCheckRequest{Files: files})
}

// CanI says whether a principal may do something, which rule decides, and what
// would have to change.
func (a *API) CanI(ctx context.Context, q CanIRequest) (*CanI, error) {
	return call[CanI](ctx, a, adminapi.SubjectPolicyCanI, q)
}

// Explain returns the audit record of a refusal, by the ref in its error.
//
// Errors: client.ErrNotFound when it is no longer kept.
func (a *API) Explain(ctx context.Context, ref string) (*Refusal, error) {
	return call[Refusal](ctx, a, adminapi.SubjectPolicyExplain, adminapi.ExplainRequest{Ref: ref})
}

// DLQList returns a page of dead letters, oldest first.
func (a *API) DLQList(ctx context.Context, q DLQQuery) (*DLQList, error) {
	return call[DLQList](ctx, a, adminapi.SubjectDLQLs, q)
}

// DLQShow returns the dead letter of a sequence with its original bytes. A large
// payload is fetched in parts.
//
// Errors: client.ErrNotFound.
func (a *API) DLQShow(ctx context.Context, seq uint64) (*StoredLetter, error) {
	var letter *StoredLetter
	for {
		offset := 0
		if letter != nil {
			offset = len(letter.Payload)
		}
		part, err := call[adminapi.DLQShow](ctx, a, adminapi.SubjectDLQShow, adminapi.DLQShowRequest{Seq: seq, Offset: offset})
		if err != nil {
			return nil, err
		}
		if part.Offset != offset || part.Seq != seq || letter != nil && part.Bytes != letter.Bytes {
			return nil, errors.New("admin: the parts of the dead letter do not fit together")
		}
		if letter == nil {
			letter = &StoredLetter{DeadLetter: part.DeadLetter, Header: part.Header}
		}
		letter.Payload = append(letter.Payload, part.Payload...)
		switch have := len(letter.Payload); {
		case have == letter.Bytes:
			return letter, nil
		case have > letter.Bytes || len(part.Payload) == 0:
			return nil, fmt.Errorf("admin: the dead letter has %d bytes, %d came", letter.Bytes, have)
		}
	}
}

// Refusals returns the refusals after q.After. When there are none it waits up to
// wait (at most MaxWait) for one; to follow, call it again with the Cursor of the
// answer. q.WaitMs is ignored.
func (a *API) Refusals(ctx context.Context, q RefusalsQuery, wait time.Duration) (*RefusalList, error) {
	ctx, wait, cancel := waiting(ctx, wait)
	defer cancel()
	q.WaitMs = wait.Milliseconds()
	return call[RefusalList](ctx, a, adminapi.SubjectRefusalsLs, q)
}

// waiting bounds a request that the broker may keep waiting, and the wait itself.
func waiting(ctx context.Context, wait time.Duration) (context.Context, time.Duration, context.CancelFunc) {
	wait = max(0, min(wait, MaxWait))
	if d, ok := ctx.Deadline(); ok {
		// An answer that comes after the deadline is lost to the caller.
		return ctx, max(0, min(wait, time.Until(d)-time.Second)), func() {}
	}
	ctx, cancel := context.WithTimeout(ctx, wait+waitMargin)
	return ctx, wait, cancel
}

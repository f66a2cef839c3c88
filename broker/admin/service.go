package admin

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"github.com/signetbus/signet/broker/acl"
	"github.com/signetbus/signet/broker/audit"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing/keyring"
)

// Limits of the requests at work, long polls included.
const (
	DefaultParallel = 256 // of all callers together
	// perCaller is the share of one principal: nobody can keep the others out.
	perCaller = 16
	// ringLane is how many keys.ring run beside that: readers need the keyring to
	// verify anything, so administrators cannot be in its way.
	ringLane = 64
)

// Config is what the service answers from. All functions return the present
// state and are safe for concurrent use.
type Config struct {
	// Node is the name of this node; it answers what the gate sends to that name.
	Node    string
	Policy  func() *policy.Set
	Keyring func() (ring *keyring.Ring, document []byte)
	// PutKeys judges a keyring and brings it to all nodes; nil: it is brought as a file
	// only. What it refuses is a *wire.Refusal.
	PutKeys func(ctx context.Context, document []byte, cutOff []string) (adminapi.KeysPut, error)
	// Certify signs a certificate request of the caller for its own names; nil: this
	// node has no authority. What it refuses is a *wire.Refusal.
	Certify func(caller *policy.Principal, request []byte) (adminapi.Certified, error)
	Status  func(ctx context.Context, tenant string) (adminapi.Status, error)
	// Consumers returns the consumers of a tenant, in any order.
	Consumers func(ctx context.Context, tenant string) ([]adminapi.ConsumerStatus, error)
	// Judge says whether a principal could publish an event, and what of its schema it
	// violates.
	Judge func(p *policy.Principal, subject string, event []byte) (acl.Explanation, []wire.Violation)
	// LetsIn reports whether somebody could come in here as the principal: the configuration
	// may give its names to nobody. nil: by the policy alone.
	LetsIn func(p *policy.Principal) bool
	// Policies serves the policy as a whole; nil: it is not served.
	Policies Policies
	Started  time.Time // this process; what it counts begins then
	Trail    *audit.Trail
	// Recording puts calls on record and reads the records; nil: nothing is.
	Recording *Recording
	Kept
	// Backups serves the area backup; nil: it is not served.
	Backups Backups
	// Logs serves the area log; nil: it is not served.
	Logs Logs
	// Conn returns the broker's own connection into a tenant's account.
	Conn func(tenant string) (*nats.Conn, error)
	// Nodes are the other nodes; nil on a broker by itself.
	Nodes Nodes
	Log   zerolog.Logger
	// Parallel bounds the requests at work; 0 means DefaultParallel.
	Parallel int
}

// Kept is what tenants have beside their streams.
type Kept struct {
	Letters   Letters
	Schedules Schedules
}

// Service answers admin requests.
type Service struct {
	cfg   Config
	slots chan struct{}   // one for each request at work
	rings chan struct{}   // the same for keys.ring
	life  context.Context // ends with Shutdown; the only context kept, for the workers
	stop  context.CancelFunc
	work  sync.WaitGroup

	mu   sync.Mutex
	subs map[string]*nats.Subscription // by tenant
	busy map[string]int                // requests at work by principal

	waiting  ringWaiters
	changing sync.Mutex // one change of the cluster at a time; held without mu
}

// request is one call on its way through a handler.
type request struct {
	call
	caller *policy.Principal
	set    *policy.Set
}

type handler func(*Service, context.Context, *request) (any, error)

var handlers = map[string]handler{
	adminapi.SubjectKeysRing:        (*Service).keysRing,
	adminapi.SubjectKeysLs:          (*Service).keysLs,
	adminapi.SubjectKeysPut:         keysPut,
	adminapi.SubjectKeysCertify:     keysCertify,
	adminapi.SubjectStatusGet:       (*Service).status,
	adminapi.SubjectStatusConsumers: (*Service).consumers,
	adminapi.SubjectStatusThrottled: throttled,
	adminapi.SubjectPolicyCheck:     (*Service).policyCheck,
	adminapi.SubjectPolicyCanI:      (*Service).policyCanI,
	adminapi.SubjectPolicyExplain:   (*Service).policyExplain,
	adminapi.SubjectPolicyShow:      policies(false, policyShow),
	adminapi.SubjectPolicyPlan:      policies(false, policyPlan),
	adminapi.SubjectPolicyPut:       policies(true, policyPut),
	adminapi.SubjectPolicyHistory:   policies(true, policyHistory),
	adminapi.SubjectPolicyGet:       policies(true, policyGet),
	adminapi.SubjectPolicyUsage:     policyUsage,
	adminapi.SubjectDLQLs:           (*Service).dlqLs,
	adminapi.SubjectDLQShow:         (*Service).dlqShow,
	adminapi.SubjectDLQStats:        dlqStats,
	adminapi.SubjectDLQPurge:        dlqPurge,
	adminapi.SubjectDLQRedrive:      dlqRedrive,
	adminapi.SubjectRefusalsLs:      (*Service).refusalsLs,
	adminapi.SubjectSchedulesPut:    schedulesPut,
	adminapi.SubjectSchedulesLs:     schedulesLs,
	adminapi.SubjectSchedulesRm:     schedulesRm,

	adminapi.SubjectAuditLs:    audited(auditVerbs.ls),
	adminapi.SubjectAuditRead:  audited(auditVerbs.read),
	adminapi.SubjectAuditSeal:  audited(auditVerbs.seal),
	adminapi.SubjectAuditHeads: audited(auditVerbs.heads),

	adminapi.SubjectBackupOpen:     backup(Backups.Open),
	adminapi.SubjectBackupRead:     backup(Backups.Read),
	adminapi.SubjectBackupRestore:  backup(Backups.Restore),
	adminapi.SubjectBackupWrite:    backup(Backups.Write),
	adminapi.SubjectBackupApply:    backup(Backups.Apply),
	adminapi.SubjectBackupProgress: backup(Backups.Progress),
	adminapi.SubjectBackupClose:    backup(closeBackup),

	adminapi.SubjectLogLs:          logs(Logs.List),
	adminapi.SubjectLogCheckpoint:  logs(Logs.Checkpoint),
	adminapi.SubjectLogVerify:      logs(Logs.Verify),
	adminapi.SubjectLogConsistency: logs(Logs.Consistency),
	adminapi.SubjectLogFind:        logs(Logs.Find),
	adminapi.SubjectLogProve:       logs(Logs.Prove),
	adminapi.SubjectLogPart:        logs(Logs.Part),
	adminapi.SubjectLogRestart:     restartLog,

	adminapi.SubjectClusterStatus:    inCluster(clusterVerbs.status),
	adminapi.SubjectClusterEvacuate:  inCluster(clusterVerbs.evacuate),
	adminapi.SubjectClusterRemove:    inCluster(clusterVerbs.remove),
	adminapi.SubjectClusterRescue:    inCluster(clusterVerbs.rescue),
	adminapi.SubjectClusterRebalance: inCluster(clusterVerbs.rebalance),
	adminapi.SubjectClusterStepDown:  inCluster(clusterVerbs.stepDown),
}

// New checks cfg and returns a service that answers nobody yet.
func New(cfg Config) (*Service, error) {
	if cfg.Node == "" || cfg.Policy == nil || cfg.Keyring == nil || cfg.Status == nil || cfg.Consumers == nil || cfg.Trail == nil || cfg.Letters == nil || cfg.Conn == nil {
		return nil, errors.New("admin: node, policy, keyring, status, consumers, trail, letters and conn are required")
	}
	if cfg.Parallel <= 0 {
		cfg.Parallel = DefaultParallel
	}
	s := &Service{
		cfg: cfg, slots: make(chan struct{}, cfg.Parallel), rings: make(chan struct{}, ringLane),
		subs: map[string]*nats.Subscription{}, busy: map[string]int{},
	}
	s.life, s.stop = context.WithCancel(context.Background())
	return s, nil
}

// Serve answers the tenants of the policy; those that are served already stay.
// Call it at start and after every change of policy.
func (s *Service) Serve(set *policy.Set) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range set.Tenants() {
		if s.subs[t.Name] != nil {
			continue
		}
		conn, err := s.cfg.Conn(t.Name)
		if err != nil {
			return fmt.Errorf("admin: tenant %s: %w", t.Name, err)
		}
		// The gate puts the name of its node behind what clients ask.
		sub, err := conn.Subscribe(wire.AtNode(wire.PrefixAdmin+"*.*", s.cfg.Node), func(m *nats.Msg) { s.accept(t.Name, m) })
		if err == nil {
			err = conn.Flush()
		}
		if err != nil {
			return fmt.Errorf("admin: tenant %s: %w", t.Name, err)
		}
		s.subs[t.Name] = sub
	}
	return nil
}

// Shutdown stops listening, ends long polls, and waits for the requests at work
// within ctx.
func (s *Service) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	for _, sub := range s.subs {
		_ = sub.Unsubscribe() // fails only when the connection is gone, which ends it too
	}
	clear(s.subs)
	s.stop() // what is delivered from here on is not begun, so what is waited for does not grow
	s.mu.Unlock()
	s.waiting.takeAll(true) // their connections end, too
	done := make(chan struct{})
	go func() {
		s.work.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// accept runs in the goroutine of the subscription and must not block.
func (s *Service) accept(tenant string, m *nats.Msg) {
	if m.Reply == "" {
		return
	}
	c := call{Tenant: tenant, Subject: strings.TrimSuffix(m.Subject, wire.AtNode("", s.cfg.Node)), Principal: m.Header.Get(wire.HeaderPrincipal), Body: m.Data, msg: m}
	release := s.enter(&c)
	if release == nil {
		s.answer(m, &c, nil, wire.Refuse(wire.CodeUnavailable, "admin", "too many admin requests at work"))
		return
	}
	if !begin(s) {
		release()
		return
	}
	go func() {
		defer s.work.Done()
		defer release()
		if result, err := s.handle(&c); !errors.Is(err, errWaits) {
			s.answer(m, &c, result, err)
		}
	}()
}

// begin counts one more request at work, unless the service is shutting down: a delivery
// may be under way while its subscription ends.
func begin(s *Service) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life.Err() != nil {
		return false
	}
	s.work.Add(1)
	return true
}

// enter takes a place for a request, or returns nil.
func (s *Service) enter(c *call) (release func()) {
	if c.Subject == adminapi.SubjectKeysRing {
		select {
		case s.rings <- struct{}{}:
			return func() { <-s.rings }
		default:
			return nil
		}
	}
	caller := c.Principal
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy[caller] >= perCaller {
		return nil
	}
	select {
	case s.slots <- struct{}{}:
	default:
		return nil
	}
	s.busy[caller]++
	return func() {
		<-s.slots
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.busy[caller]--; s.busy[caller] == 0 {
			delete(s.busy, caller)
		}
	}
}

func (s *Service) handle(c *call) (result any, err error) {
	ctx, cancel := context.WithTimeout(s.life, time.Minute)
	defer cancel()
	defer func() { s.cfg.Recording.ended(c, err) }()
	defer func() {
		if p := recover(); p != nil {
			s.cfg.Log.Error().Str("subject", c.Subject).Interface("panic", p).Msg("admin request failed")
			err = wire.Refuse(wire.CodeInternal, "admin", "")
		}
	}()
	r, h, err := admit(s, c)
	if err != nil {
		return nil, err
	}
	if err := s.cfg.Recording.begun(ctx, c); err != nil {
		return nil, err
	}
	return h(s, ctx, r)
}

// admit finds the caller and the handler, and judges the grant.
func admit(s *Service, c *call) (*request, handler, error) {
	r := &request{call: *c, set: s.cfg.Policy()}
	name, ok := strings.CutPrefix(c.Principal, c.Tenant+"/")
	if ok {
		r.caller = r.set.Principal(c.Tenant, name)
	}
	if r.caller == nil || r.caller.Disabled {
		return nil, nil, wire.Refuse(wire.CodePrincipalRevoked, "admin", "")
	}
	area, open, ok := adminapi.Grant(c.Subject)
	h := handlers[c.Subject]
	if !ok || h == nil {
		return nil, nil, wire.Refuse(wire.CodeNotFound, "admin", "no such request")
	}
	if !open && !acl.Admin(r.caller, area).Use().Allowed && !acl.OwnLetters(r.caller, c.Subject) && !acl.OwnSchedules(r.caller, c.Subject) {
		return nil, nil, wire.Refuse(wire.CodeAdminDenied, "default-deny/admin", "area "+area)
	}
	return r, h, nil
}

func (s *Service) answer(m *nats.Msg, c *call, result any, err error) {
	body := s.encode(c.Subject, c.Principal, result, err)
	err = m.Respond(body)
	if errors.Is(err, nats.ErrMaxPayload) { // the caller must not wait for nothing
		err = m.Respond(s.encode(c.Subject, c.Principal, nil, wire.Refuse(wire.CodePayloadTooLarge, "admin",
			fmt.Sprintf("the answer has %d bytes, more than a message may have: raise gate.maxPayload", len(body)))))
	}
	if err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		s.cfg.Log.Warn().Err(err).Str("subject", c.Subject).Msg("admin answer not sent")
	}
}

func (s *Service) encode(subject, principal string, result any, err error) []byte {
	var body []byte
	if err == nil {
		body, err = adminapi.EncodeResult(result)
	}
	if err != nil {
		r := wire.AsRefusal(err)
		if r.Code == wire.CodeInternal {
			s.cfg.Log.Error().Err(err).Str("subject", subject).Msg("admin request failed")
		}
		r.Subject, r.Principal = subject, principal
		body = r.Answer("", true)
	}
	return body
}

// ofTenant returns the name of a principal of the caller's tenant that a request names: so,
// or in full, as all output shows it.
func (r *request) ofTenant(principal string) (string, error) {
	tenant, name, full := strings.Cut(principal, "/")
	switch {
	case !full:
		return principal, nil
	case tenant != r.caller.Tenant.Name:
		return "", wire.Refuse(wire.CodeRequestMalformed, adminapi.RuleOtherTenant,
			"the principal is of another tenant: this credential sees those of "+r.caller.Tenant.Name)
	}
	return name, nil
}

// decode reads the body of a request.
func (r *request) decode(into any) error {
	if err := adminapi.DecodeRequest(r.Body, into); err != nil {
		return wire.Refuse(wire.CodeRequestMalformed, "admin", err.Error())
	}
	return nil
}

// limit applies the default and the maximum to a list length.
func limit(n int) int {
	if n <= 0 {
		return adminapi.DefaultListLimit
	}
	return min(n, adminapi.MaxListLimit)
}

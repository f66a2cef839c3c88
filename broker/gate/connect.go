package gate

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"

	"github.com/signetbus/signet/broker/identity"
)

// Errors of CONNECT.
var (
	errConnect       = errors.New("Parser Error")
	errProtocol      = errors.New("invalid client protocol")
	errNoResponders  = errors.New("no responders requires headers support")
	errAuthorization = errors.New("Authorization Violation")
	errAuthTimeout   = errors.New("Authentication Timeout")
	errUnavailable   = errors.New("Service Unavailable")
	errMemory        = errors.New("Service Unavailable: memory is short (gate.maxMemory)")
	errAudit         = errors.New("Service Unavailable: the audit trail takes no records (audit)")
	// Its text is that of nats-server, which client libraries compare as a whole.
	errConnections = errors.New("maximum connections exceeded")
	errRevoked     = errors.New("User Authentication Revoked")
	// Client libraries know this text too, and reconnect with a fresh credential.
	errExpired = errors.New("User Authentication Expired")
	errStale   = errors.New("Stale Connection")
)

// connectOptions are the options of CONNECT that the gate honours.
type connectOptions struct {
	Verbose, Pedantic, Echo bool
	Headers, NoResponders   bool
	Protocol                int
	Name, Lang, Version     string
}

// parseConnect reads the JSON of CONNECT. Unlike encoding/json into a struct it
// takes member names byte for byte, and refuses a repeated member and anything
// after the object: what the authenticator sees must be what was sent. Unknown
// members are ignored, as clients of all ages send some. Defaults are nats-server's.
func parseConnect(text []byte, o *connectOptions, c *identity.Credentials) error {
	*o = connectOptions{Verbose: true, Pedantic: true, Echo: true}
	var account string
	var newAccount bool
	members := map[string]any{
		"verbose": &o.Verbose, "pedantic": &o.Pedantic, "echo": &o.Echo,
		"headers": &o.Headers, "no_responders": &o.NoResponders, "protocol": &o.Protocol,
		"name": &o.Name, "lang": &o.Lang, "version": &o.Version,
		"nkey": &c.NkeyPublic, "sig": &c.Signature, "jwt": &c.JWT, "auth_token": &c.AuthToken,
		"user": &c.User, "pass": &c.Pass,
		"account": &account, "new_account": &newAccount,
	}
	if err := decodeMembers(text, members); err != nil {
		return errConnect
	}
	switch {
	case account != "" || newAccount:
		return errAuthorization // nobody chooses an account
	case o.Protocol < 0 || o.Protocol > 1:
		return errProtocol
	case o.NoResponders && !o.Headers:
		return errNoResponders
	}
	o.Name, o.Lang, o.Version = clip(o.Name), clip(o.Lang), clip(o.Version)
	return nil
}

// decodeMembers decodes one JSON object into the given members.
func decodeMembers(text []byte, members map[string]any) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return errConnect
	}
	seen := make(map[string]bool, len(members))
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return err
		}
		name, ok := t.(string)
		if !ok || seen[name] {
			return errConnect
		}
		seen[name] = true
		into, known := members[name]
		if !known {
			into = new(json.RawMessage)
		}
		if err := dec.Decode(into); err != nil {
			return err
		}
	}
	if _, err := dec.Token(); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errConnect
	}
	return nil
}

// clip bounds what a client says of itself.
func clip(s string) string {
	const most = 128
	if len(s) > most {
		return s[:most]
	}
	return s
}

// upstreamConnect is the gate's own CONNECT.
type upstreamConnect struct {
	Verbose      bool   `json:"verbose"`
	Pedantic     bool   `json:"pedantic"`
	TLSRequired  bool   `json:"tls_required"`
	Token        string `json:"auth_token"`
	Name         string `json:"name"`
	Lang         string `json:"lang"`
	Version      string `json:"version"`
	Protocol     int    `json:"protocol"`
	Echo         bool   `json:"echo"`
	Headers      bool   `json:"headers"`
	NoResponders bool   `json:"no_responders"`
}

// upstream renders the CONNECT and the PING that open the connection to the server.
func (o *connectOptions) upstream(token string) ([]byte, error) {
	b, err := json.Marshal(&upstreamConnect{ //nolint:gosec // the ticket is for the server, which gets it over loopback
		Token: token, Name: o.Name, Lang: o.Lang, Version: o.Version,
		Protocol: 1, Echo: o.Echo, Headers: true, NoResponders: o.NoResponders,
	})
	if err != nil {
		return nil, err
	}
	b = append([]byte("CONNECT "), b...)
	return append(b, "\r\nPING\r\n"...), nil
}

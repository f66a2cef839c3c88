package gate

import (
	"encoding/json"
	"net"
	"strconv"
)

// infoKind says which INFO is wanted.
type infoKind uint8

const (
	infoFirst     infoKind = iota // before CONNECT
	infoConnected                 // after the first PONG
	infoLameDuck                  // the gate is draining
)

// serverInfo is the INFO of the gate: the members of nats-server's that mean
// something to a client, with the gate's values.
type serverInfo struct {
	ID           string   `json:"server_id"`
	Name         string   `json:"server_name"`
	Version      string   `json:"version"`
	Proto        int      `json:"proto"`
	Go           string   `json:"go"`
	Host         string   `json:"host"`
	Port         int      `json:"port"`
	Headers      bool     `json:"headers"`
	AuthRequired bool     `json:"auth_required"`
	TLSRequired  bool     `json:"tls_required,omitempty"`
	MaxPayload   int      `json:"max_payload"`
	JetStream    bool     `json:"jetstream"`
	ClientID     uint64   `json:"client_id"`
	ClientIP     string   `json:"client_ip"`
	Nonce        string   `json:"nonce,omitempty"`
	ConnectURLs  []string `json:"connect_urls,omitempty"`
	LameDuck     bool     `json:"ldm,omitempty"`
	ConnectInfo  bool     `json:"connect_info,omitempty"`
	Account      string   `json:"remote_account,omitempty"`
	APILevel     int      `json:"api_lvl,omitempty"`
}

// greeting is what INFO says to one client. The handshake sets account; after it
// nothing changes.
type greeting struct {
	gate    *Gate
	id      uint64
	ip      string
	nonce   string
	account string // the tenant, once it is known
}

// info renders one INFO frame.
func (h *greeting) info(kind infoKind) []byte {
	g := h.gate
	host, port, _ := net.SplitHostPort(g.addr.String())
	n, _ := strconv.Atoi(port)
	i := serverInfo{
		ID: g.cfg.ServerID, Name: g.cfg.ServerName, Version: g.cfg.Version,
		Proto: 1, Go: "go", Host: host, Port: n, Headers: true, AuthRequired: true,
		TLSRequired: g.cfg.TLS != nil, MaxPayload: g.cfg.Limits.Payload, JetStream: true,
		ClientID: h.id, ClientIP: h.ip, Nonce: h.nonce,
		ConnectURLs: g.cfg.Advertise, APILevel: g.cfg.APILevel,
	}
	switch kind {
	case infoConnected:
		i.ConnectInfo = true
		i.Account = h.account
	case infoLameDuck:
		// nats-server leaves the other servers in: this one is leaving.
		i.LameDuck = true
	}
	b, err := json.Marshal(&i)
	if err != nil { // no member can fail to encode
		b = []byte("{}")
	}
	b = append([]byte("INFO "), b...)
	return append(b, '\r', '\n')
}

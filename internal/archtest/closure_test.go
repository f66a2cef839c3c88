package archtest

import (
	"go/ast"
	"testing"
)

// shippedNever may not be anywhere in what `signet` is built from: code that is loaded
// while it runs, and libraries by which nodes find each other by asking the network.
var shippedNever = []string{
	"plugin", "golang.org/x/net/ipv4", "golang.org/x/net/ipv6", "github.com/hashicorp/mdns", "github.com/hashicorp/memberlist", "github.com/hashicorp/serf",
	"github.com/hashicorp/go-plugin", "github.com/grandcat/zeroconf", "github.com/miekg/dns", "net/rpc",
}

// listeners are the functions of package net that take datagrams, multicast among them.
// What answers a datagram can be found, and be lied to, by anybody who is near.
var listeners = map[string]bool{"ListenMulticastUDP": true, "ListenUDP": true, "ListenPacket": true, "ListenIP": true}

// TestNoPluginsAndNoDiscovery: the binary loads no code, and finds nobody by multicast: who
// a node or a service is stands in the configuration and in signed records.
func TestNoPluginsAndNoDiscovery(t *testing.T) {
	p, ok := listPackages(t)["cmd/signet"]
	if !ok || len(p.Deps) < 100 {
		t.Fatalf("cmd/signet has %d dependencies", len(p.Deps))
	}
	for _, dep := range p.Deps {
		for _, never := range shippedNever {
			if within(dep, never) {
				t.Errorf("cmd/signet is built from %s", dep)
			}
		}
	}
	calls := 0
	for _, f := range goFiles(t) {
		if f.test {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if pkg, ok := sel.X.(*ast.Ident); ok && pkg.Name == "net" {
				calls++
				if listeners[sel.Sel.Name] {
					t.Errorf("%s: net.%s takes datagrams: connections are TCP, to addresses of the configuration", f.path, sel.Sel.Name)
				}
			}
			return true
		})
	}
	if calls < 50 {
		t.Errorf("only %d uses of package net were seen", calls)
	}
}

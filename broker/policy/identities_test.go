package policy

import "testing"

const identityPolicy = `tenant: shop
principals:
  - name: checkout
    identities:
      - spiffe: spiffe://shop.example/checkout
      - dns: checkout.shop.example
      - serviceAccount: shop/checkout
      - oidc: {issuer: "https://ci.example/a", subject: "repo:acme/shop:ref:refs/heads/main", claims: {environment: production, verified: true}}
      - oidc: {issuer: "https://ci.example/a", subject: "repo:acme/shop:ref:refs/heads/main", claims: {environment: test}}
  - {name: mute}
---
tenant: mill
principals:
  - {name: checkout, identities: [{serviceAccount: shop/checkout}]}
`

func TestIdentities(t *testing.T) {
	b, err := Parse("p.yaml", []byte(identityPolicy))
	if err != nil {
		t.Fatal(err)
	}
	set, err := Compile(b)
	if err != nil {
		t.Fatal(err)
	}
	const subject = "repo:acme/shop:ref:refs/heads/main"
	for _, tc := range []struct {
		name string
		got  *Principal
		want string
	}{
		{"spiffe", set.BySPIFFE("spiffe://shop.example/checkout"), "shop/checkout"},
		{"spiffe, another case", set.BySPIFFE("spiffe://shop.example/Checkout"), ""},
		{"spiffe, below", set.BySPIFFE("spiffe://shop.example/checkout/x"), ""},
		{"dns", set.ByDNS("checkout.shop.example"), "shop/checkout"},
		{"dns as spiffe", set.BySPIFFE("checkout.shop.example"), ""},
		{"service account", set.ByServiceAccount("shop", "shop/checkout"), "shop/checkout"},
		{"service account of another tenant", set.ByServiceAccount("mill", "shop/checkout"), "mill/checkout"},
		{"service account of no tenant", set.ByServiceAccount("", "shop/checkout"), ""},
		{"oidc", set.ByOIDC("https://ci.example/a", subject), "shop/checkout"},
		{"oidc of another issuer", set.ByOIDC("https://ci.example/a/", subject), ""},
	} {
		got := ""
		if tc.got != nil {
			got = tc.got.FullName()
		}
		if got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
	}
	p := set.Principal("shop", "checkout")
	if n := len(p.Identities.OIDC); n != 2 || len(p.Identities.OIDC[0].Claims) != 2 || *p.Identities.OIDC[0].Claims[1].Bool != true {
		t.Errorf("got %+v", p.Identities.OIDC)
	}
	if !p.CanConnect() || set.Principal("shop", "mute").CanConnect() {
		t.Error("CanConnect is wrong")
	}
}

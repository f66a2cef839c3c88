package acl_test

import (
	"fmt"

	"github.com/signetbus/signet/broker/acl"
	"github.com/signetbus/signet/broker/policy"
)

func Example() {
	bundle, err := policy.Parse("shop.yaml", []byte(`tenant: shop
streams: [{name: ORDERS, subjects: [orders.>], maxBytes: 1GiB}]
principals:
  - name: checkout
    publish: [orders.*.created]
`))
	if err != nil {
		panic(err)
	}
	set, err := policy.Compile(bundle)
	if err != nil {
		panic(err)
	}
	checkout := set.Principal("shop", "checkout")
	fmt.Println(acl.Classify(checkout.Tenant, "orders.eu.created"), acl.Publish(checkout, "orders.eu.created").Allowed)
	fmt.Println(acl.Explain(checkout, "publish", "orders.eu.paid"))
	// Output:
	// event true
	// DENIED: shop/checkout may not publish "orders.eu.paid"
	//   rule: default-deny/publish
	//   nearest grant: orders.*.created (shop.yaml:5:15)
	//   fix: add "orders.eu.paid" to publish of principal checkout (shop.yaml:4:11) or of one of its roles
}

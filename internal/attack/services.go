package attack

import (
	"context"
	"fmt"

	"github.com/signetbus/signet/internal/wire"
)

// services are attacks on services and on those who call them.
var services = []Attack{
	{
		Number: 70, Name: "registry forgery: calls", Control: "serve grants", Row: "5",
		Does: "serves the victim's endpoint, alone and in a queue, to get its calls",
		run:  listening(codes(wire.CodeServeDenied, wire.CodeSubscribeDenied), []string{call, call + " q", "rpc.>"}, calling),
	},
	{
		Number: 71, Name: "registry forgery: discovery", Control: "serve grants", Row: "5",
		Does: "answers for the victim's service when somebody looks for it",
		run: listening(codes(wire.CodeServeDenied, wire.CodeSubscribeDenied), []string{"$SRV.PING.attackrpc", "$SRV.INFO.attackrpc", "$SRV.PING"},
			func(ctx context.Context, r *Rig, marker string) error {
				c, err := r.as(ctx, victim)
				if err != nil {
					return err
				}
				defer c.Close()
				if err := c.send(pub("$SRV.PING.attackrpc", c.inbox+".x", nil, marker)); err != nil {
					return err
				}
				errs, err := c.sync(ctx)
				if err == nil {
					err = errorTold(errs)
				}
				return err
			}),
	},
	{
		Number: 72, Name: "call without a grant", Control: "call grants", Row: "3",
		Does: "calls an endpoint that is not granted",
		run:  callUngranted,
	},
}

func callUngranted(ctx context.Context, r *Rig) (Outcome, error) {
	s, sid, err := r.serve(ctx)
	if err != nil {
		return Outcome{}, err
	}
	defer s.Close()
	c, err := r.as(ctx, clerk)
	if err != nil {
		return Outcome{}, err
	}
	defer c.Close()
	if err := c.send(pub(call, "", nil, "denied")); err != nil {
		return Outcome{}, err
	}
	errs, err := c.sync(ctx)
	if err != nil {
		return Outcome{}, err
	}
	// A call that is granted comes behind it, and shows that the service hears.
	if err := calling(ctx, r, "granted"); err != nil {
		return Outcome{}, err
	}
	f, ok, err := s.next(ctx, 10*hearing, sid, nil)
	if err != nil || !ok {
		return Outcome{}, fmt.Errorf("no call came to the service: %w", err)
	}
	if f.body == "denied" {
		return judgeTold(nil, 1, &f, nil)
	}
	return judgeTold(errs, 1, nil, codes(wire.CodeCallDenied))
}

// calling has the attacker, who may call, call with the marker.
func calling(ctx context.Context, r *Rig, marker string) error {
	c, err := r.as(ctx, attacker)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.send(pub(call, "", nil, marker)); err != nil {
		return err
	}
	errs, err := c.sync(ctx)
	if err == nil {
		err = errorTold(errs)
	}
	return err
}

// Package admin asks a broker about itself: typed calls of the admin API
// ($SIGNET.API.<area>.<verb>) over a client.Client. It is what the command line
// uses; there is no other way in.
//
// Every call but KeyRing needs the admin grant of its area (backup, cluster, keys,
// status, policy, dlq, refusals) and acts inside the tenant of the caller, except
// those about the cluster, which is everybody's. Only Restore and the Cluster calls
// change anything.
//
// Errors are those of package client: errors.Is(err, client.ErrDenied) without
// the grant, client.ErrNotFound, client.ErrMalformed, client.ErrUnavailable.
//
// An API value keeps no state but its client and may be used by many goroutines.
package admin

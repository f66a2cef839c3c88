// Package ca makes and loads the TLS material of the client port: a certificate
// authority for development and small installations, server certificates of it,
// and a TLS configuration that picks up rotated certificate files without a
// restart.
//
// Keys are ECDSA P-256: every TLS 1.3 client must support it (RFC 8446 section
// 9.1), which Ed25519 certificates cannot say. The protocol is TLS 1.3 only.
//
// Files are PEM. A private key is one PKCS #8 (or SEC 1) block in a file that only
// its owner may read; any other is refused, not warned about. (A file of root's may
// also be readable by its group, if the process is not root's: that is how
// Kubernetes mounts secrets.) Files are written to a temporary name and renamed, so
// that no reader sees half of one.
//
// A [Reloader] may be used from any goroutine; it starts none. The rest are plain
// functions.
package ca

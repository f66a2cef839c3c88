package wire

// maxErrText bounds what one -ERR line says, in bytes.
const maxErrText = 480

// AppendErr appends the -ERR line for r: how a refusal reaches a client that left
// no reply subject. subscription says whether a SUB was refused; everything else
// is told as a publish.
//
// The first words decide what client libraries do, so they are those of
// nats-server: "Permissions Violation" and "Maximum Subscriptions Exceeded" leave
// the connection open, the others close it. The caller closes the connection after
// a line for which ErrLineCloses is true. What Signet adds stands in parentheses
// behind them. The subject is printed with every byte that is not printable ASCII,
// and every quote, as a question mark. See docs/spec/errors.md.
func (r *Refusal) AppendErr(dst []byte, subscription bool) []byte {
	dst = append(dst, "-ERR '"...)
	start := len(dst)
	switch r.Code {
	case CodeAuthRequired, CodeAuthFailed:
		// nats-server's exact text: libraries compare it, and an attacker learns no more.
		return append(dst, "Authorization Violation'\r\n"...)
	case CodePrincipalRevoked:
		return append(dst, "User Authentication Revoked'\r\n"...)
	case CodeConnectionLimited:
		return append(dst, "maximum connections exceeded'\r\n"...)
	case CodeProtocolViolation:
		dst = append(dst, "Unknown Protocol Operation"...)
	case CodeSubscriptionLimited:
		dst = append(dst, "Maximum Subscriptions Exceeded"...)
	default:
		if subscription {
			dst = append(dst, `Permissions Violation for Subscription to "`...)
		} else {
			dst = append(dst, `Permissions Violation for Publish to "`...)
		}
		dst = appendPrintable(dst, r.Subject, MaxSubjectBytes)
		dst = append(dst, '"')
	}
	dst = append(dst, " (signet "...)
	dst = append(dst, r.Code.String()...)
	dst = append(dst, ": "...)
	dst = append(dst, r.Code.Entry().Title...)
	if r.Rule != "" {
		dst = append(dst, "; rule "...)
		dst = appendPrintable(dst, r.Rule, 80)
	}
	if r.Ref != "" {
		dst = append(dst, "; ref "...)
		dst = appendPrintable(dst, r.Ref, 40)
	}
	if len(dst) > start+maxErrText {
		dst = dst[:start+maxErrText]
	}
	return append(dst, ")'\r\n"...)
}

// ErrLineCloses reports whether the connection ends with the -ERR line of code.
func (c Code) ErrLineCloses() bool {
	switch c {
	case CodeAuthRequired, CodeAuthFailed, CodePrincipalRevoked, CodeConnectionLimited, CodeProtocolViolation:
		return true
	}
	return false
}

// appendPrintable appends at most limit bytes of s, with a question mark for each
// that could end the line or the quotes around it.
func appendPrintable(dst []byte, s string, limit int) []byte {
	for i := range min(len(s), limit) {
		c := s[i]
		if c < ' ' || c >= 0x7f || c == '\'' || c == '"' {
			c = '?'
		}
		dst = append(dst, c)
	}
	return dst
}

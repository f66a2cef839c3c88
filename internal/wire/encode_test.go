package wire

import "testing"

func TestEncoders(t *testing.T) {
	b := func(s string) []byte { return []byte(s) }
	tests := []struct {
		name string
		got  []byte
		want string
	}{
		{"pub", AppendPub(b("x"), b("a.b"), nil, b("hi")), "xPUB a.b 2\r\nhi\r\n"},
		{"pub with reply", AppendPub(nil, b("a.b"), b("_INBOX.1"), b("hi")), "PUB a.b _INBOX.1 2\r\nhi\r\n"},
		{"pub of nothing", AppendPub(nil, b("a"), nil, nil), "PUB a 0\r\n\r\n"},
		{"hpub", AppendHPub(b("x"), b("a"), nil, b("NATS/1.0\r\n\r\n"), b("hi")), "xHPUB a 12 14\r\nNATS/1.0\r\n\r\nhi\r\n"},
		{"hpub with reply", AppendHPub(nil, b("a"), b("r"), b("NATS/1.0\r\n\r\n"), nil), "HPUB a r 12 12\r\nNATS/1.0\r\n\r\n\r\n"},
		{"msg", AppendMsg(b("x"), b("a"), b("7"), nil, b("hi")), "xMSG a 7 2\r\nhi\r\n"},
		{"msg with reply", AppendMsg(nil, b("a"), b("7"), b("r"), b("hi")), "MSG a 7 r 2\r\nhi\r\n"},
		{"header", AppendHeader(b("x"), "a", b("b")), "xa: b\r\n"},
	}
	for _, tt := range tests {
		if string(tt.got) != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, tt.got, tt.want)
		}
	}
}

package natsbus

import (
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

// reply answers a request, with an error where there is a refusal. It may be called
// after the request's handler has returned, as Respond and Error of a micro.Request
// may not: micro looks at what they noted then. So its statistics count requests,
// and no errors.
func reply(nc *nats.Conn, r micro.Request, refusal *requestError, body []byte) error {
	m := &nats.Msg{Subject: r.Reply(), Data: body}
	if refusal != nil {
		m.Header = nats.Header{
			micro.ErrorCodeHeader: {refusal.code},
			micro.ErrorHeader:     {headerLine(refusal.text)},
		}
	}
	return nc.PublishMsg(m)
}

// headerLine makes a text fit for a header.
func headerLine(text string) string {
	line := strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return ' '
		}
		return c
	}, text)
	if line = strings.TrimSpace(line); line == "" {
		return "refused"
	}
	return line
}

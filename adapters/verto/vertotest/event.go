package vertotest

// Kind is what happened.
type Kind uint8

// The kinds. Those without a leg name the user and the sessid only.
const (
	LoggedIn     Kind = iota + 1 // no leg
	LoginRefused                 // no leg; Text is the server's message
	Disconnected                 // no leg; the socket is gone
	Punted                       // no leg; another socket has taken the sessid
	Invited                      // the client calls; nothing is decided yet
	Offered                      // verto.invite is queued for the client
	EarlyMedia                   // verto.media is queued for the client
	Answering                    // the client's verto.answer was read and is not taken yet
	Answered                     // by either side
	MediaUp                      // ICE and DTLS have connected
	Held                         // by the client
	Unheld
	Digits      // Text is what verto.info said, in its own grammar
	Texted      // Text is the body of the client's message
	Transferred // Text is the destination
	Detached    // the socket of an answered leg is gone
	Attaching   // verto.attach is queued for the client
	Recovering  // the client's verto.attach was read and is not taken yet
	Reattached
	Ended // Text is the cause
)

// Event is something that happened.
type Event struct {
	Kind   Kind
	Login  string
	Sessid string
	Leg    *Leg
	Text   string
}

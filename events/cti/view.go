package cti

// CallView is a call as it was after the event at Position. It is the value of
// the key-value bucket of calls.
type CallView struct {
	Position     uint64 `json:"position"`
	Domain       string `json:"domain"`
	Account      string `json:"account"` // number@domain
	CallID       string `json:"callId"`
	Conversation string `json:"conversation,omitempty"`
	Call         Call   `json:"call"`
}

// LineView is a line as it was after the event at Position. It is the value of
// the key-value bucket of lines.
type LineView struct {
	Position uint64 `json:"position"`
	Domain   string `json:"domain"`
	Account  string `json:"account"` // number@domain
	Line     Line   `json:"line"`
}

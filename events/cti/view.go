package cti

// CallView is a call as it was after the event at Position. It is the value of
// the key-value bucket of calls.
type CallView struct {
	Position     uint64 `json:"position"`
	Seq          uint64 `json:"seq"` // of the call's last CTI event: the next one that a subscriber gets is one more
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
	LineSeq  uint64 `json:"lineSeq"` // of the account's last CTI event
	Domain   string `json:"domain"`
	Account  string `json:"account"` // number@domain
	Line     Line   `json:"line"`
}

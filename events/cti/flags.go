package cti

import (
	"slices"
	"strings"
)

// Features is a set of bit flags: what a user can do with a call or a line now
// (reference/cti-model.md, 2.1, CallFeaturesSet).
type Features int

// The flags. Note that the last one's bit is the highest, though the source
// lists it beside CanCompleteTransfer.
const (
	CanNothing                Features = 0
	CanRecall                 Features = 1
	CanDial                   Features = 2
	CanAnswer                 Features = 4
	CanDrop                   Features = 8
	CanHold                   Features = 16
	CanUnhold                 Features = 32
	CanSetupTransfer          Features = 64
	CanCompleteTransfer       Features = 128
	CanBlindTransfer          Features = 256
	CanMakeConsultCall        Features = 512
	CanDTMF                   Features = 1024
	CanVideo                  Features = 2048
	CanMute                   Features = 4096
	CanCancelCompleteTransfer Features = 8192
)

// The sets that occur, named as in the reference.
const (
	Idle             = CanDial                                                             // 2
	RingIn           = CanDrop | CanAnswer                                                 // 12
	RingInNoAnswer   = CanDrop                                                             // 8
	RingOut          = CanDrop                                                             // 8
	Talk             = CanDrop | CanHold | CanDTMF                                         // 1048
	TalkBridged      = CanDrop | CanHold | CanDTMF | CanMakeConsultCall | CanBlindTransfer // 1816
	Held             = CanUnhold | CanMakeConsultCall | CanDTMF                            // 1568
	CompleteTransfer = CanCompleteTransfer                                                 // 128
)

var featureNames = [...]string{
	"CAN_RECALL", "CAN_DIAL", "CAN_ANSWER", "CAN_DROP", "CAN_HOLD", "CAN_UNHOLD", "CAN_SETUP_TRANSFER",
	"CAN_COMPLETE_TRANSFER", "CAN_BLIND_TRANSFER", "CAN_MAKE_CONSULT_CALL", "CAN_DTMF", "CAN_VIDEO", "CAN_MUTE",
	"CAN_CANCEL_COMPLETE_TRANSFER",
}

// setNames are the names of the sets that occur: every view carries one of them.
var setNames = func() map[Features][]string {
	m := map[Features][]string{}
	for _, f := range []Features{CanNothing, Idle, RingIn, RingInNoAnswer, Talk, TalkBridged, Held, CompleteTransfer} {
		m[f] = f.makeNames()
	}
	return m
}()

// Names returns the names of the flags in f, lowest bit first; never nil. The
// slice is shared and must not be changed.
func (f Features) Names() []string {
	if names, ok := setNames[f]; ok {
		return names
	}
	return f.makeNames()
}

func (f Features) makeNames() []string {
	names := []string{}
	for i, n := range featureNames {
		if f&(1<<i) != 0 {
			names = append(names, n)
		}
	}
	return slices.Clip(names)
}

// Has reports whether all flags of g are in f.
func (f Features) Has(g Features) bool { return f&g == g }

// String returns the names joined by "|", CAN_NOTHING for the empty set.
func (f Features) String() string {
	if f == 0 {
		return "CAN_NOTHING"
	}
	return strings.Join(f.Names(), "|")
}

// State is a call's state (reference/cti-model.md, 2.3, GeneralizedCallState).
type State int

// The states. BUSY and UNKNOWN belong to the vocabulary; Webitel does not use them.
const (
	StateNone        State = 0 // not active
	StateAlerting    State = 1 // ringing, either way
	StateConnected   State = 2
	StateHeld        State = 3
	StateConferenced State = 4
	StateUnknown     State = 5
	StateBusy        State = 6
)

var stateNames = [...]string{"NONE", "ALERTING", "CONNECTED", "HOLDED", "CONFERENCED", "UNKNOWN", "BUSY"}

// String returns the reference's name, HOLDED as it is spelled there.
func (s State) String() string {
	if s >= 0 && int(s) < len(stateNames) {
		return stateNames[s]
	}
	return "UNKNOWN"
}

// Agent states (reference/cti-model.md, 2.8 and 9).
const (
	AgentOnHook      = "ONHOOK" // free
	AgentBusy        = "ISBUSY"
	AgentNotReg      = "NONREG"
	AgentOnBreak     = "ONBREAK"
	AgentDND         = "DND"
	AgentCallForward = "CALLFORWARD"
	AgentVoicemail   = "VOICEMAIL"
)

// Lookup ids of the call's direction in the Creatio data model
// (reference/cti-model.md, 2.4).
const (
	DirectionUnknownID = "c072be2c-3d82-4468-9d4a-6db47d1f4cca"
	DirectionOutID     = "53f71b5f-7e17-4cf5-bf14-6a59212db422"
	DirectionInID      = "1d96a65f-2131-4916-8825-2d142b1000b2"
)

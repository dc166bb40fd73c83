package engine

import "github.com/callstate/callstate/events"

// parties reads who calls whom from a channel's profile, from the account's side.
//
// A switch writes a channel's caller and callee as its dialplan sees them, and
// swaps them when a channel that the switch placed enters the dialplan itself.
// swapped says that the profile is turned round (client semantics 4.2, "SW");
// which rows are then to be exchanged depends on the call's direction.
// Names go with their numbers (client quirk 19).
func parties(o *LegObservation, dir events.Direction, account string) events.Parties {
	own, _ := splitAccount(account)
	if o.OriginateNumber != "" && !o.HitDialplan {
		// A click-to-call before its own leg is in the dialplan: the switch has
		// whatever the originator wrote there.
		return events.Parties{CallerNumber: own, CalledNumber: o.OriginateNumber}
	}
	caller := party{o.CallerNumber, o.CallerName}
	callee := party{o.CalleeNumber, o.CalleeName}
	swapped := o.Inbound && (o.ChannelCall == "" || o.Leg == o.ChannelCall) || !o.Inbound && o.HitDialplan
	if dir == events.In {
		if swapped {
			caller, callee = callee, caller
		}
	} else {
		switch {
		case !swapped && !o.LogicalInbound:
			caller, callee = callee, caller
		case callee.number == "":
			callee.number = o.Destination
		}
	}
	caller.resolve(dir == events.Out, own)
	callee.resolve(dir == events.In, own)
	return events.Parties{
		CallerNumber: caller.number, CallerName: caller.name,
		CalledNumber: callee.number, CalledName: callee.name,
	}
}

type party struct{ number, name string }

// resolve replaces the address of a web phone (a UUID, perhaps after "u:"), which
// is no number: on the account's own side by the account's, on the other side by
// nothing (client quirk 20). A name that repeats the number says nothing.
func (p *party) resolve(own bool, number string) {
	if webPhoneAddress(p.number) {
		p.number = ""
		if own {
			p.number = number
		}
	}
	if p.name == p.number || webPhoneAddress(p.name) {
		p.name = ""
	}
}

func webPhoneAddress(s string) bool {
	if len(s) > 36 && s[0] == 'u' {
		s = s[1:]
		if s[0] == ':' {
			s = s[1:]
		}
	}
	if len(s) != 36 {
		return false
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; i {
		case 8, 13, 18, 23:
			if c != '-' {
				return false
			}
		default:
			if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z') {
				return false
			}
		}
	}
	return true
}

// update returns the parties with what n says; what n leaves out stays.
func update(old, n events.Parties) events.Parties {
	if n.CallerNumber != "" && n.CallerNumber != old.CallerNumber {
		old.CallerNumber, old.CallerName = n.CallerNumber, n.CallerName
	} else if n.CallerName != "" {
		old.CallerName = n.CallerName
	}
	if n.CalledNumber != "" && n.CalledNumber != old.CalledNumber {
		old.CalledNumber, old.CalledName = n.CalledNumber, n.CalledName
	} else if n.CalledName != "" {
		old.CalledName = n.CalledName
	}
	return old
}

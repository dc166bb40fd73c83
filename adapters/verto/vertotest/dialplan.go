package vertotest

import "time"

// Route is what becomes of a client's call.
type Route struct {
	// Cause refuses the call after Ring, such as USER_BUSY; empty lets it be
	// answered.
	Cause string
	// Ring is how long it rings; negative until [Leg.Answer] or [Leg.Hangup].
	Ring time.Duration
	// Early sends early media at once.
	Early bool
	// Far is who answers. Bridged says that it is a phone and not an application:
	// the client is then told the callee, and may transfer.
	Far     FarEnd
	Bridged bool
}

// DemoUsers are the users of the recordings. Their password is the number.
func DemoUsers() []User {
	return []User{
		{Login: "1001@demo.local", Password: "1001"},
		{Login: "1002@demo.local", Password: "1002"},
		{Login: "1003@demo.local", Password: "1003"},
	}
}

// DemoDialplan is that of the recordings: 1002 and 1003 are phones that answer
// after 0.35 s, 8001 is an application that echoes, 2000 is not registered, and
// nothing else exists.
func DemoDialplan(l *Leg) Route {
	switch l.Destination() {
	case "1002", "1003":
		return Route{Ring: 350 * time.Millisecond, Bridged: true}
	case "8001":
		return Route{Far: Echo}
	case "2000":
		return Route{Cause: "NORMAL_TEMPORARY_FAILURE"}
	}
	return Route{Cause: "NO_ROUTE_DESTINATION"}
}

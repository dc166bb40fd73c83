package verto

import (
	"testing"

	"github.com/callstate/callstate/events"
)

// The server may answer the bye of a call that has no media before the phone has
// noted the failure.
func TestFailingDialogFails(t *testing.T) {
	d := Dialogs{calls: map[string]*dialog{"a": {Change: Change{CallID: "a", To: events.DialogHangup}}}}
	d.Failing("a")
	d.Fail("a", events.SessionBye)
	if got := d.Destroy("a").Changes; len(got) != 1 || got[0].Reason != events.SessionFailed {
		t.Errorf("%+v, want the reason %s", got, events.SessionFailed)
	}
}

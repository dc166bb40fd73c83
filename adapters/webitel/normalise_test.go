package webitel

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/testdata/captures"
)

var testSource = events.Source{Adapter: "webitel", Connection: "c1", Sequence: 7}

const testArrival = events.Time(1_795_384_000_000_000)

// checkInput checks what holds for every frame, and returns the input.
func checkInput(t *testing.T, b []byte) engine.Input {
	t.Helper()
	raw := bytes.Clone(b)
	in := Observe(raw, testSource, testArrival)
	again := Observe(b, testSource, testArrival)
	for i := range raw {
		raw[i] = '#'
	}
	if !reflect.DeepEqual(in, again) {
		t.Fatalf("the input refers to the frame's bytes, or two observations differ:\n%s", cmp.Diff(again, in))
	}
	meanings := 0
	for _, set := range []bool{in.Leg != nil, in.Agents != nil, in.Link != nil, in.Quarantine != nil} {
		if set {
			meanings++
		}
	}
	switch {
	case meanings > 1:
		t.Fatalf("%d meanings: %+v", meanings, in)
	case in.ReceivedAt != testArrival || in.Unframed || in.Origin != events.Live:
		t.Fatalf("envelope: %+v", in)
	case in.Source.Core == "" && in.Source.Sequence != testSource.Sequence:
		t.Fatalf("a sequence without its core: %+v", in.Source)
	case in.Leg != nil && (in.Leg.Kind == 0 || in.Leg.Leg == "" || in.Source.Path == ""):
		t.Fatalf("leg: %+v", in)
	case in.Leg != nil && (in.Leg.At == 0) != (in.Leg.Clock == events.TimeUnknown):
		t.Fatalf("time without clock: %+v", in.Leg)
	case in.Quarantine != nil && (in.Quarantine.Reason == "" || !bytes.Equal(in.Quarantine.Frame, b)):
		t.Fatalf("quarantine: %+v", in.Quarantine)
	}
	return in
}

func observe(t *testing.T, frame string) engine.Input {
	t.Helper()
	return checkInput(t, []byte(frame))
}

func TestNothingCapturedIsQuarantined(t *testing.T) {
	t.Parallel()
	kinds := make(map[engine.LegKind]int)
	for _, c := range allCaptured(t) {
		in := Observe(c.raw, testSource, testArrival)
		if in.Quarantine != nil {
			t.Fatalf("%s: %s %s\n%.300s", c.file, in.Quarantine.Reason, in.Quarantine.Detail, c.raw)
		}
		if in.Leg != nil {
			kinds[in.Leg.Kind]++
		}
	}
	for k := engine.LegSeen; k <= engine.LegRecordingStopped; k++ {
		if kinds[k] == 0 {
			t.Errorf("no capture has leg kind %d", k)
		}
	}
	t.Logf("leg kinds: %v", kinds)
}

// The list of event types with variables is what decides on the account path.
// It is held here against what the switch really attached.
func TestVariablesComeWithTheListedEvents(t *testing.T) {
	t.Parallel()
	for _, c := range allCaptured(t) {
		f, err := Decode(c.raw)
		if err != nil {
			t.Fatal(err)
		}
		if f.Kind == KindLeg && f.Path != events.PathAccount && f.vars != f.info.vars {
			t.Errorf("%s: %s: has variables: %v, listed: %v", c.file, f.Event, f.vars, f.info.vars)
		}
	}
}

func TestSourceOfAFrame(t *testing.T) {
	t.Parallel()
	const numbered = `"Core-UUID":"core","FreeSWITCH-Hostname":"h","FreeSWITCH-Switchname":"s","Event-Sequence":"42"`
	for _, tt := range []struct {
		name, frame string
		want        events.Source
	}{
		{
			"server", `{"webitel-event-name":"server","Event-Name":"SE:CHANNEL_STATE","Unique-ID":"u",` + numbered + `}`,
			events.Source{Path: events.PathServer, Switch: "s", Core: "core", Sequence: 42},
		},
		{
			"switch, no-op", `{"Event-Name":"API",` + numbered + `}`,
			events.Source{Path: events.PathSwitch, Switch: "s", Core: "core", Sequence: 42},
		},
		{
			"host for want of a name", `{"Event-Name":"API","FreeSWITCH-Hostname":"h","Core-UUID":"core","Event-Sequence":42}`,
			events.Source{Path: events.PathSwitch, Switch: "h", Core: "core", Sequence: 42},
		},
		{
			"no core", `{"Event-Name":"API","Event-Sequence":"42"}`,
			events.Source{Path: events.PathSwitch, Sequence: 7},
		},
		{
			"no sequence", `{"Event-Name":"API","Core-UUID":"core"}`,
			events.Source{Path: events.PathSwitch, Sequence: 7},
		},
		{
			"a sequence that is none", `{"Event-Name":"API","Core-UUID":"core","Event-Sequence":"-1"}`,
			events.Source{Path: events.PathSwitch, Sequence: 7},
		},
		{
			"account path", `{"webitel-event-name":"call","Event-Name":"CHANNEL_STATE","Unique-ID":"u",` + numbered + `}`,
			events.Source{Path: events.PathAccount, Sequence: 7},
		},
		{
			"account event", `{"webitel-event-name":"ACCOUNT_STATUS","Event-Name":"ACCOUNT_STATUS","Account-User":"1","Account-Domain":"d",` + numbered + `}`,
			events.Source{Sequence: 7},
		},
		{"reply", `{"exec-uuid":"1"}`, events.Source{Sequence: 7}},
		{"garbage", `{`, events.Source{Sequence: 7}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.want.Adapter, tt.want.Connection = "webitel", "c1"
			if d := cmp.Diff(tt.want, observe(t, tt.frame).Source); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

func TestQuarantineReasons(t *testing.T) {
	t.Parallel()
	type row struct{ name, frame, reason string }
	rows := []row{
		{"channel event without its channel", `{"Event-Name":"CHANNEL_CREATE","Core-UUID":"c"}`, ReasonMissingID},
		{"channel event with an empty id", `{"Event-Name":"CHANNEL_STATE","Unique-ID":""}`, ReasonMissingID},
		{"channel event with an undefined id", `{"Event-Name":"CHANNEL_STATE","Unique-ID":"undefined"}`, ReasonMissingID},
		{"member without its channel", `{"Event-Name":"CUSTOM","Event-Subclass":"conference::maintenance","Action":"add-member"}`, ReasonMissingID},
		{"DTMF without a digit", `{"Event-Name":"DTMF","Unique-ID":"u"}`, ReasonMissingDigit},
		{"status of nobody", `{"Event-Name":"ACCOUNT_STATUS","webitel-event-name":"ACCOUNT_STATUS","Account-Domain":"d"}`, ReasonMissingID},
		{"nobody online", `{"Event-Name":"ACCOUNT_ONLINE","webitel-event-name":"user","User-ID":"1001"}`, ReasonMissingID},
		{"unknown event", `{"Event-Name":"CHANNEL_EXPLODED","Unique-ID":"u"}`, ReasonUnknownEvent},
		{"unknown server event", `{"Event-Name":"SE:EXPLODED","webitel-event-name":"server"}`, ReasonUnknownEvent},
		{"event without a name", `{"webitel-event-name":"call","Unique-ID":"u"}`, ReasonUnknownEvent},
		{"unknown event with a long name", `{"Event-Name":"` + strings.Repeat("Ї", 1000) + `"}`, ReasonUnknownEvent},
	}
	for _, b := range badFrames {
		rows = append(rows, row{b.name, b.frame, b.reason})
	}
	for _, tt := range rows {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			in := observe(t, tt.frame)
			if in.Quarantine == nil {
				t.Fatalf("not quarantined: %+v", in)
			}
			if in.Quarantine.Reason != tt.reason {
				t.Errorf("got %s, want %s", in.Quarantine.Reason, tt.reason)
			}
			if len(in.Quarantine.Detail) > maxDetail || !json.Valid(mustJSON(t, in.Quarantine.Detail)) {
				t.Errorf("detail %q", in.Quarantine.Detail)
			}
		})
	}
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestKnownNoOpsSayNothing(t *testing.T) {
	t.Parallel()
	for _, frame := range []string{
		`{"Event-Name":"CHANNEL_EXECUTE","Unique-ID":"u"}`, `{"Event-Name":"HEARTBEAT"}`, `{"Event-Name":"PRESENCE_IN"}`,
		`{"Event-Name":"SE:HEARTBEAT","webitel-event-name":"server"}`, `{"Event-Name":"CC::MEMBERS-COUNT","webitel-event-name":"server"}`,
		`{"Event-Name":"CUSTOM","Event-Subclass":"valet_parking::info","Action":"hold","Unique-ID":"u"}`,
		`{"Event-Name":"USER_STATE","webitel-event-name":"USER_STATE"}`, `{"Event-Name":"DOMAIN_CREATE","webitel-event-name":"DOMAIN_CREATE"}`,
		`{"webitel-event-name":"account","Event-Name":"DISCONNECT"}`, `{"exec-uuid":"1","exec-complete":"+OK"}`,
	} {
		if in := observe(t, frame); in.Leg != nil || in.Agents != nil || in.Quarantine != nil {
			t.Errorf("%s: %+v", frame, in)
		}
	}
}

func TestLegOfACapturedFrame(t *testing.T) {
	t.Parallel()
	const (
		leg   = "494bb4b1-a0c5-4237-b317-c276f0ed58dd" // B of 12-record
		other = "93440809-d091-48b9-8329-e392422eb1ca"
	)
	var got []engine.LegObservation
	for _, c := range recordings(t, "freeswitch/12-record.jsonl") {
		in := checkInput(t, c.raw)
		if l := in.Leg; l != nil && (l.Kind == engine.LegCreated || l.Kind == engine.LegDetails) && l.Leg == leg {
			got = append(got, *l)
		}
		if l := in.Leg; l != nil && (l.Kind == engine.LegRecordingStarted || l.Kind == engine.LegRecordingStopped) {
			if l.Recording != "12.wav" || l.Leg != other || (l.Kind == engine.LegRecordingStopped) != (l.RecordMs == 2980) {
				t.Errorf("recording: %+v", l)
			}
		}
	}
	if len(got) != 2 {
		t.Fatalf("got %d frames", len(got))
	}
	created := engine.LegObservation{
		Kind: engine.LegCreated, Clock: events.TimeOfEvent, Leg: leg, Presence: "1001@demo.local", Vars: true,
		CallGroup: got[0].CallGroup, ChannelCall: other, Channel: "sofia/internal/1001@127.0.0.1:5071", Profiled: true,
		CallerNumber: "+380671112233", CallerName: "Ivan", CalleeNumber: "1001", Destination: "1001",
		OtherLeg: other, OriginatingLeg: other, At: got[0].At, CreatedAt: got[0].CreatedAt,
	}
	if d := cmp.Diff(created, got[0]); d != "" {
		t.Errorf("CREATE, -want +got:\n%s", d)
	}
	// billsec counts whole seconds of two clock readings, so it may say more than
	// billmsec.
	end := got[1]
	if end.Cause != "NORMAL_CLEARING" || end.CauseCode != 16 || end.Disposition != "send_bye" || !end.Ending ||
		!end.HasTimes || !end.HasBillSec || end.WaitMs == 0 ||
		end.BillSec != 5 || end.BillMs != 4840 || end.HungupAt == 0 {
		t.Errorf("HANGUP_COMPLETE: %+v", end)
	}
}

// Both paths of Webitel carry the same switch event; where both say something
// they must say the same.
func TestBothPathsSayTheSame(t *testing.T) {
	t.Parallel()
	type key struct {
		kind engine.LegKind
		leg  string
	}
	// A state may be seen on one path and not on the other, so only events that
	// a channel has once are compared.
	once := map[engine.LegKind]bool{
		engine.LegCreated: true, engine.LegAnswered: true, engine.LegBridged: true, engine.LegHungup: true,
		engine.LegDetails: true, engine.LegDestroyed: true,
	}
	server := make(map[key]*engine.LegObservation)
	for _, c := range recordings(t, "webitel-v3/1*.domain.jsonl") {
		if l := Observe(c.raw, testSource, testArrival).Leg; l != nil && once[l.Kind] {
			server[key{l.Kind, l.Leg}] = l
		}
	}
	compared, withData := 0, 0
	for _, c := range recordings(t, "webitel-v3/1*.agent.jsonl") {
		a := Observe(c.raw, testSource, testArrival).Leg
		if a == nil || server[key{a.Kind, a.Leg}] == nil {
			continue
		}
		want := *server[key{a.Kind, a.Leg}]
		// What the account path does not forward.
		want.Channel, want.CauseCode, want.Disposition, want.At, want.Clock = "", 0, "", a.At, a.Clock
		want.HasTimes, want.WaitMs, want.BillMs, want.HoldMs = false, 0, 0, 0
		want.TransferTarget, want.TransferStamp, want.WebRTC, want.BridgedTo = "", "", "", ""
		if d := cmp.Diff(want, *a); d != "" {
			t.Errorf("%s: -server +account:\n%s", c.file, d)
		}
		compared++
		if a.Data != "" {
			withData++
		}
	}
	if compared < 30 || withData == 0 {
		t.Errorf("compared %d frames, %d of them with data", compared, withData)
	}
}

// legCase is one rule of normalising, as a frame and what it must say.
type legCase struct {
	name, frame string
	want        engine.LegObservation
}

var legCases = []legCase{
	{
		"percent-encoded texts, once", `"Event-Name":"CHANNEL_STATE","Channel-Presence-ID":"1004%40acme.example",
		"Caller-Caller-ID-Number":"%2B380501234567","Caller-Caller-ID-Name":"%D0%86%D0%B2%D0%B0%D0%BD%2520A","Caller-Destination-Number":"%2A97"`,
		engine.LegObservation{
			Kind: engine.LegSeen, Presence: "1004@acme.example", CallerNumber: "+380501234567",
			CallerName: "Іван%20A", Destination: "*97", Profiled: true,
		},
	},
	{
		"percent codes that do not parse stay", `"Event-Name":"CHANNEL_STATE","Caller-Caller-ID-Name":"100%","Caller-Callee-ID-Name":"%zz%41",
		"Caller-Caller-ID-Number":"%ff","Caller-Callee-ID-Number":"1+2%2"`,
		engine.LegObservation{Kind: engine.LegSeen, CallerName: "100%", CalleeName: "%zz%41", CallerNumber: "%ff", CalleeNumber: "1+2%2", Profiled: true},
	},
	{
		"undefined is nothing", `"Event-Name":"CHANNEL_STATE","Caller-Caller-ID-Number":"undefined","Channel-Call-UUID":"'undefined'",
		"variable_cc_queue":"undefined"`,
		engine.LegObservation{Kind: engine.LegSeen, Vars: true, Profiled: true},
	},
	{
		"the filler is no name", `"Event-Name":"CHANNEL_STATE","Caller-Callee-ID-Name":"Outbound%20Call","Caller-Caller-ID-Name":"Outbound Call"`,
		engine.LegObservation{Kind: engine.LegSeen},
	},
	{
		"caller's name ends at the @", `"Event-Name":"CHANNEL_STATE","Caller-Caller-ID-Name":"1001@demo.local","Caller-Callee-ID-Name":"a@b"`,
		engine.LegObservation{Kind: engine.LegSeen, CallerName: "1001", CalleeName: "a@b"},
	},
	{
		"no profile yet", `"Event-Name":"CHANNEL_STATE","Channel-State":"CS_NEW","Caller-Caller-ID-Number":"1"`,
		engine.LegObservation{Kind: engine.LegSeen, CallerNumber: "1"},
	},
	{
		"an empty number is a profile", `"Event-Name":"CHANNEL_STATE","Caller-Destination-Number":""`,
		engine.LegObservation{Kind: engine.LegSeen, Profiled: true},
	},
	{
		"directions", `"Event-Name":"CHANNEL_STATE","Call-Direction":"inbound","Caller-Logical-Direction":"inbound","Channel-HIT-Dialplan":"true"`,
		engine.LegObservation{Kind: engine.LegSeen, Inbound: true, LogicalInbound: true, HitDialplan: true},
	},
	{
		"call group in either spelling", `"Event-Name":"CHANNEL_CREATE","variable_w_account_origination_uuid":"w1","variable_webitel_call_uuid":""`,
		engine.LegObservation{Kind: engine.LegCreated, Vars: true, CallGroup: "w1"},
	},
	{
		"originating leg for want of another", `"Event-Name":"CHANNEL_CREATE","variable_originating_leg_uuid":"o"`,
		engine.LegObservation{Kind: engine.LegCreated, Vars: true, OtherLeg: "o", OriginatingLeg: "o"},
	},
	{
		"parent by SIP header", `"Event-Name":"CHANNEL_CREATE","variable_sip_h_X-WebitelXTransfer":"p","variable_w_jsclient_originate_number":"1002"`,
		engine.LegObservation{Kind: engine.LegCreated, Vars: true, Parent: "p", OriginateNumber: "1002"},
	},
	{
		"queue", `"Event-Name":"CHANNEL_CREATE","variable_cc_queue":"q@d","variable_cc_member_session_uuid":"m","variable_w_transfer_result":"error"`,
		engine.LegObservation{Kind: engine.LegCreated, Vars: true, Queue: "q@d", QueueMember: "m", TransferResult: "error"},
	},
	{
		"data keeps its quotes off the account path", `"Event-Name":"CHANNEL_CREATE","variable_webitel_data":"'{\"a\":\"100%25\"}'"`,
		engine.LegObservation{Kind: engine.LegCreated, Vars: true, Data: `'{"a":"100%25"}'`},
	},
	{
		"event time in microseconds", `"Event-Name":"CHANNEL_CREATE","Event-Date-Timestamp":"1795384046670301","Caller-Channel-Created-Time":"1795384046670300"`,
		engine.LegObservation{Kind: engine.LegCreated, At: 1795384046670301, Clock: events.TimeOfEvent, CreatedAt: 1795384046670300},
	},
	{
		"created for want of it", `"Event-Name":"CHANNEL_CREATE","Caller-Channel-Created-Time":"5","Caller-Channel-Answered-Time":"0"`,
		engine.LegObservation{Kind: engine.LegCreated, At: 5, Clock: events.TimeOfChannel, CreatedAt: 5},
	},
	{
		"answered", `"Event-Name":"CHANNEL_ANSWER","Caller-Channel-Created-Time":"5","Caller-Channel-Answered-Time":"6"`,
		engine.LegObservation{Kind: engine.LegAnswered, At: 6, Clock: events.TimeOfChannel, CreatedAt: 5, AnsweredAt: 6},
	},
	{
		"no time at all", `"Event-Name":"CHANNEL_HOLD","Caller-Channel-Created-Time":"5","Event-Date-Timestamp":"soon"`,
		engine.LegObservation{Kind: engine.LegHeld, CreatedAt: 5},
	},
	{
		"ending by state", `"Event-Name":"CHANNEL_STATE","Channel-State":"CS_REPORTING","Hangup-Cause":"USER_BUSY","Caller-Channel-Hangup-Time":"9"`,
		engine.LegObservation{Kind: engine.LegSeen, Ending: true, Cause: "USER_BUSY", HungupAt: 9, At: 9, Clock: events.TimeOfChannel},
	},
	{
		"ending by answer state", `"Event-Name":"CHANNEL_CALLSTATE","Answer-State":"hangup"`,
		engine.LegObservation{Kind: engine.LegSeen, Ending: true},
	},
	{
		"variable cause first, billsec not yet", `"Event-Name":"CHANNEL_HANGUP","Hangup-Cause":"A","variable_hangup_cause":"B","variable_billsec":"4"`,
		engine.LegObservation{Kind: engine.LegHungup, Vars: true, Ending: true, Cause: "B"},
	},
	{
		"end of the call in figures", `"Event-Name":"CHANNEL_HANGUP_COMPLETE","variable_waitmsec":"12","variable_billmsec":"34","variable_hold_accum_ms":"5",
		"variable_billsec":0,"variable_hangup_cause_q850":"16","variable_sip_hangup_disposition":"recv_bye"`,
		engine.LegObservation{
			Kind: engine.LegDetails, Vars: true, Ending: true, HasTimes: true, WaitMs: 12, BillMs: 34, HoldMs: 5,
			HasBillSec: true, CauseCode: 16, Disposition: "recv_bye",
		},
	},
	{
		"figures that are none", `"Event-Name":"CHANNEL_DESTROY","variable_waitmsec":"-1","variable_billmsec":"x","variable_billsec":"1e3",
		"variable_hangup_cause_q850":"502"`,
		engine.LegObservation{Kind: engine.LegDestroyed, Vars: true, Ending: true},
	},
	{
		"blind transfer", `"Event-Name":"CHANNEL_BRIDGE","variable_transfer_history":"1795384057:31cf:bl_xfer:1002/default/XML"`,
		engine.LegObservation{Kind: engine.LegBridged, Vars: true, TransferTarget: "1002", TransferStamp: "1795384057:31cf"},
	},
	{
		"the last of two transfers", `"Event-Name":"CHANNEL_BRIDGE","variable_transfer_history":["1:a:bl_xfer:1002/default/XML","2:b:bl_xfer:1001/default/XML"]`,
		engine.LegObservation{Kind: engine.LegBridged, Vars: true, TransferTarget: "1001", TransferStamp: "2:b"},
	},
	{
		"the last was no blind one", `"Event-Name":"CHANNEL_BRIDGE","variable_transfer_history":["1:a:bl_xfer:1002/default/XML","2:b:uuid_br:x"]`,
		engine.LegObservation{Kind: engine.LegBridged, Vars: true},
	},
	{
		"transfers as a variable dump has them", `"Event-Name":"CHANNEL_BRIDGE","variable_transfer_history":"ARRAY::1:a:bl_xfer:1002/default/XML|:2:b:bl_xfer:1001/default/XML"`,
		engine.LegObservation{Kind: engine.LegBridged, Vars: true, TransferTarget: "1001", TransferStamp: "2:b"},
	},
	{
		"one transfer in a dump", `"Event-Name":"CHANNEL_BRIDGE","variable_transfer_history":"ARRAY::1:a:bl_xfer:1002/default/XML"`,
		engine.LegObservation{Kind: engine.LegBridged, Vars: true, TransferTarget: "1002", TransferStamp: "1:a"},
	},
	{
		"digit", `"Event-Name":"DTMF","DTMF-Digit":"%23","DTMF-Source":"RTP","DTMF-Duration":"2000"`,
		engine.LegObservation{Kind: engine.LegDTMF, Digit: "#", DigitVia: "RTP", DigitMs: 250},
	},
	{
		"new id", `"Event-Name":"CHANNEL_UUID","Old-Unique-ID":"old"`,
		engine.LegObservation{Kind: engine.LegRenamed, OldLeg: "old"},
	},
	{"new id, the old one lost", `"Event-Name":"CHANNEL_UUID"`, engine.LegObservation{Kind: engine.LegSeen}},
	{
		"recording", `"Event-Name":"RECORD_STOP","Record-File-Path":"C:\\rec\\a b.wav","variable_record_ms":"2980"`,
		engine.LegObservation{Kind: engine.LegRecordingStopped, Vars: true, Recording: "a b.wav", RecordMs: 2980},
	},
	{
		"conference", `"Event-Name":"CUSTOM","Event-Subclass":"conference::maintenance","Action":"del-member","Conference-Name":"7001"`,
		engine.LegObservation{Kind: engine.LegConferenceLeft, Conference: "7001"},
	},
	{"park", `"Event-Name":"CHANNEL_PARK"`, engine.LegObservation{Kind: engine.LegParked}},
	{
		"bridge", `"Event-Name":"CHANNEL_UNBRIDGE","Bridge-A-Unique-ID":"a","Bridge-B-Unique-ID":"b","Other-Leg-Unique-ID":"b"`,
		engine.LegObservation{Kind: engine.LegUnbridged, BridgeA: "a", BridgeB: "b", OtherLeg: "b"},
	},
	{
		"called Verto channel, whose name is a secret", `"Event-Name":"CHANNEL_STATE","Channel-Name":"verto.rtc/fe821b89-5162-43ec-998d-ad15a46e480c"`,
		engine.LegObservation{Kind: engine.LegSeen, Channel: "verto.rtc/", WebRTC: "verto"},
	},
	{
		"Verto channel", `"Event-Name":"CHANNEL_STATE","Channel-Name":"verto.rtc/1002"`,
		engine.LegObservation{Kind: engine.LegSeen, Channel: "verto.rtc/1002", WebRTC: "verto"},
	},
	{
		"Verto user", `"Event-Name":"CHANNEL_STATE","variable_verto_user":"1001@demo.local"`,
		engine.LegObservation{Kind: engine.LegSeen, Vars: true, WebRTC: "verto"},
	},
	{
		"SIP over WebSocket", `"Event-Name":"CHANNEL_STATE","Channel-Name":"sofia/internal/1001","variable_sip_via_protocol":"wss"`,
		engine.LegObservation{Kind: engine.LegSeen, Vars: true, Channel: "sofia/internal/1001", WebRTC: "sip-ws"},
	},
	{
		"SIP phone called by a Verto user", `"Event-Name":"CHANNEL_STATE","Channel-Name":"sofia/internal/1002","variable_verto_user":"1001@demo.local"`,
		engine.LegObservation{Kind: engine.LegSeen, Vars: true, Channel: "sofia/internal/1002"},
	},
}

func TestLegRules(t *testing.T) {
	t.Parallel()
	for _, tt := range legCases {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			in := observe(t, `{"Unique-ID":"u","Core-UUID":"c",`+tt.frame+`}`)
			if in.Leg == nil {
				t.Fatalf("no leg: %+v", in)
			}
			tt.want.Leg = "u"
			if d := cmp.Diff(tt.want, *in.Leg); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

func TestDataOfTheAccountPathLosesOnePairOfQuotes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ value, want string }{
		{`'{\"a\":\"it's\"}'`, `{"a":"it's"}`},
		{`''x''`, `'x'`},
		{`'undefined'`, ``},
		{`{\"a\":1}`, `{"a":1}`},
		{`'`, `'`},
		{`''`, ``},
		{`'open`, `'open`},
	} {
		in := observe(t, `{"webitel-event-name":"call","Event-Name":"CHANNEL_CREATE","Unique-ID":"u","variable_webitel_data":"`+tt.value+`"}`)
		if in.Leg.Data != tt.want {
			t.Errorf("%s: got %q, want %q", tt.value, in.Leg.Data, tt.want)
		}
		if !in.Leg.Vars {
			t.Error("CREATE carries variables")
		}
	}
}

// On the account path billsec stands in every frame, so a variable in sight
// proves nothing there.
func TestAccountPathStatesCarryNoVariables(t *testing.T) {
	t.Parallel()
	in := observe(t, `{"webitel-event-name":"call","Event-Name":"CHANNEL_STATE","Unique-ID":"u","variable_billsec":0,"variable_hangup_cause":"X"}`)
	if in.Leg.Vars || in.Leg.HasBillSec || in.Leg.Cause != "X" {
		t.Errorf("%+v", in.Leg)
	}
}

func TestAccountEvents(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, frame string
		want        engine.AgentObservation
	}{
		{
			"status", `{"Event-Name":"ACCOUNT_STATUS","Account-Domain":"demo.local","Account-Status":"ONBREAK","Account-User":"1001",
			"Account-User-State":"ONHOOK","Event-Date-Timestamp":"1795387151810000","Account-Status-Descript":"обід 100%",
			"Account-Agent-Status":"Logged%20Out","ws":true,"webitel-event-name":"ACCOUNT_STATUS"}`,
			engine.AgentObservation{
				Kind: engine.AgentStatus, At: 1795387151810000, Clock: events.TimeOfEvent, Account: "1001@demo.local",
				State: "ONHOOK", Status: "ONBREAK", Note: "обід 100%", Queue: "Logged Out",
			},
		},
		{
			"status, domain of the event", `{"Event-Name":"ACCOUNT_STATUS","Account-User":"1001","Event-Domain":"d","webitel-event-name":"ACCOUNT_STATUS"}`,
			engine.AgentObservation{Kind: engine.AgentStatus, Account: "1001@d"},
		},
		{
			"online", `{"Event-Name":"ACCOUNT_ONLINE","Event-Domain":"e","User-ID":"1001","User-Domain":"u","webitel-event-name":"user"}`,
			engine.AgentObservation{Kind: engine.AgentOnline, Account: "1001@u"},
		},
		{
			"offline", `{"Event-Name":"ACCOUNT_OFFLINE","Event-Domain":"e","User-ID":1001,"webitel-event-name":"user"}`,
			engine.AgentObservation{Kind: engine.AgentOffline, Account: "1001@e", Reason: "Offline"},
		},
		{
			"number with its domain", `{"Event-Name":"ACCOUNT_ONLINE","User-ID":"1001%40x","User-Domain":"u","webitel-event-name":"user"}`,
			engine.AgentObservation{Kind: engine.AgentOnline, Account: "1001@x"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if d := cmp.Diff([]engine.AgentObservation{tt.want}, observe(t, tt.frame).Agents); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

// TestTimesThatCannotBeWritten are none: a reader of what is published could not
// read them, nor what stands around them.
func TestTimesThatCannotBeWritten(t *testing.T) {
	for _, at := range []events.Time{1, events.MaxTime, events.MaxTime + 1, 999_999_999_999_999_999} {
		raw := fmt.Sprintf(`{"webitel-event-name":"server","Event-Name":"SE:CHANNEL_ANSWER","Unique-ID":"u","Event-Date-Timestamp":"%[1]d","Caller-Channel-Answered-Time":"%[1]d"}`, at)
		in := Observe([]byte(raw), events.Source{}, 5)
		if in.Leg == nil {
			t.Fatal(in.Quarantine)
		}
		for _, got := range []events.Time{in.Leg.At, in.Leg.AnsweredAt} {
			text, err := got.MarshalText()
			var back events.Time
			if err = errors.Join(err, back.UnmarshalText(text)); err != nil || back != got {
				t.Errorf("%d is read as %d: %v", at, got, err)
			}
			if at <= events.MaxTime && got != at {
				t.Errorf("%d is read as %d", at, got)
			}
		}
	}
}

func TestAccountList(t *testing.T) {
	t.Parallel()
	const rows = `{"1007":{"id":"1007","domain":"acme.example","online":true,"state":"ONHOOK","status":"NONE","descript":"","agent":"true"},
		"1004":{"id":1004,"online":false,"state":"NONREG","status":"DND","descript":"lunch","agent.status":"Logged Out"}}`
	want := []engine.AgentObservation{
		{Kind: engine.AgentStatus, Account: "1004@d", State: "NONREG", Status: "DND", Note: "lunch", Queue: "Logged Out"},
		{Kind: engine.AgentOnline, Account: "1007@acme.example", State: "ONHOOK", Status: "NONE"},
	}
	text := string(mustJSON(t, rows))
	for _, response := range []string{rows, text, `{"response":` + rows + `}`, `{"response":` + text + `}`} {
		got, err := AccountList(json.RawMessage(response), "d")
		if err != nil {
			t.Errorf("%.60s: %v", response, err)
			continue
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%.60s: -want +got:\n%s", response, d)
		}
	}
	for _, response := range []string{``, `null x`, `{"response":"+OK\n"}`, `"-ERR no"`, `[1]`, `{"1004":{"id":"1004"}}`} {
		if got, err := AccountList(json.RawMessage(response), ""); err == nil {
			t.Errorf("%s: got %v", response, got)
		}
	}
}

// One odd row costs what it says and nothing else.
func TestAccountListWithOddRows(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("9", events.MaxID)
	list := `{"1004":{"id":"1004","online":true},"":{"online":true},"` + long + `":{"online":true},"1005":"soon","1006":[],"1007":{"id":"1007","state":"ONHOOK"}}`
	want := []engine.AgentObservation{
		{Kind: engine.AgentOnline, Account: "1004@d"},
		{Kind: engine.AgentStatus, Account: "1007@d", State: "ONHOOK"},
	}
	got, err := AccountList(json.RawMessage(list), "d")
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	for _, row := range []string{`row ""`, `row "9999`, `row "1005"`, `row "1006"`} {
		if err == nil || !strings.Contains(err.Error(), row) {
			t.Errorf("error %v does not name %s", err, row)
		}
	}
	many := "{"
	for i := range 1000 {
		many += fmt.Sprintf(`"%d":7,`, i)
	}
	if _, err := AccountList(json.RawMessage(many+`"1004":{}}`), "d"); err == nil || len(err.Error()) > 1000 {
		t.Errorf("of 1,000 odd rows it says %v", err)
	}
}

func TestAccountListsAsCaptured(t *testing.T) {
	t.Parallel()
	asked := make(map[string]bool)
	lists, online := 0, 0
	for _, name := range []string{"webitel-v3/01-session.jsonl", "webitel-v3/30-account-status.supervisor.jsonl"} {
		lines, err := captures.Transcript(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range lines {
			if l.Frame == nil {
				continue
			}
			var command struct {
				ID   string `json:"exec-uuid"`
				Func string `json:"exec-func"`
			}
			if err := json.Unmarshal(l.Frame, &command); err != nil {
				t.Fatal(err)
			}
			if l.Dir == "out" {
				asked[command.ID] = command.Func == "api account list"
				continue
			}
			f, err := Decode(l.Frame)
			if err != nil {
				t.Fatal(err)
			}
			if f.Kind != KindReply || !asked[f.Reply.ID] {
				continue
			}
			agents, err := AccountList(f.Reply.Response, "demo.local")
			if err != nil || len(agents) < 3 || agents[0].Account != "1001@demo.local" || agents[0].State != "ONHOOK" {
				t.Errorf("%s: %+v, %v", name, agents, err)
			}
			for _, a := range agents {
				if a.Kind == engine.AgentOnline {
					online++
				}
			}
			lists++
		}
	}
	if lists < 3 || online == 0 {
		t.Errorf("saw %d lists, %d accounts online", lists, online)
	}
}

func ExampleObserve() {
	in := Observe([]byte(`{"Event-Name":"SE:CHANNEL_HANGUP","webitel-event-name":"server","Core-UUID":"d34d51d2",
		"Event-Sequence":"2790","Unique-ID":"494bb4b1","Channel-Presence-ID":"1001@demo.local",
		"Hangup-Cause":"USER_BUSY","Event-Date-Timestamp":"1795384048050439"}`), events.Source{Adapter: "webitel"}, 0)
	fmt.Println(in.Leg.Presence, in.Leg.Cause, in.Leg.At, in.Source.Sequence)

	in = Observe([]byte(`{"Event-Name":"SE:CHANNEL_HAN`), events.Source{Adapter: "webitel"}, 0)
	fmt.Println(in.Quarantine.Reason)
	// Output:
	// 1001@demo.local USER_BUSY 2026-11-22T21:47:28.050439Z 2790
	// truncated
}

// serverFrames are the frames that the server path really delivers.
func serverFrames(b *testing.B) [][]byte {
	b.Helper()
	var out [][]byte
	for _, c := range recordings(b, "webitel-v3/*.domain.jsonl") {
		if f, err := Decode(c.raw); err == nil && f.Path == events.PathServer {
			out = append(out, c.raw)
		}
	}
	return out
}

// BenchmarkObserve reads captured SE: frames and gives, beside its own time, how
// many times that encoding/json needs for the same frames, measured in the same
// run. The target is 3 at least.
func BenchmarkObserve(b *testing.B) {
	frames := serverFrames(b)
	size := 0
	for _, f := range frames {
		size += len(f)
	}
	b.SetBytes(int64(size / len(frames)))
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		Observe(frames[n%len(frames)], testSource, testArrival)
		n++
	}
	b.StopTimer()
	ours := float64(b.Elapsed().Nanoseconds()) / float64(n)
	b.ReportMetric(ours, "ns/frame")
	b.ReportMetric(encodingJSONTime(b, frames)/ours, "x-encoding/json")
}

// encodingJSONTime returns the time that encoding/json needs for a frame. It runs
// beside another benchmark, where [testing.Benchmark] would wait for ever.
func encodingJSONTime(b *testing.B, frames [][]byte) float64 {
	b.Helper()
	const rounds = 3
	start := time.Now()
	for range rounds {
		for _, f := range frames {
			var m map[string]any
			if err := json.Unmarshal(f, &m); err != nil {
				b.Fatal(err)
			}
		}
	}
	return float64(time.Since(start).Nanoseconds()) / float64(rounds*len(frames))
}

// BenchmarkEncodingJSONMap is the peer: the same frames into a map, and nothing
// read from it.
func BenchmarkEncodingJSONMap(b *testing.B) {
	frames := serverFrames(b)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		var m map[string]any
		if err := json.Unmarshal(frames[n%len(frames)], &m); err != nil {
			b.Fatal(err)
		}
		n++
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/frame")
}

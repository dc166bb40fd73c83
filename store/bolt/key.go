package bolt

import (
	"fmt"
	"slices"

	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/store"
)

// A call's key is its account, 0x00 0x01, its call id, with every 0x00 of the
// account written as 0x00 0xff: bytes compare as (account, call id) does, and no
// account a hostile frame may name can be taken for another.
const (
	keyMark = 0x00
	keySep  = 0x01
	keyZero = 0xff
)

func appendAccountKey(b []byte, account string) []byte {
	for i := range len(account) {
		b = append(b, account[i])
		if account[i] == keyMark {
			b = append(b, keyZero)
		}
	}
	return append(b, keyMark, keySep)
}

func appendCallKey(b []byte, k events.CallKey) []byte {
	b = slices.Grow(b, len(k.Account)+2+len(k.Call)) // most accounts have no 0x00
	return append(appendAccountKey(b, k.Account), k.Call...)
}

func parseCallKey(b []byte) (events.CallKey, error) {
	var account []byte
	for i := 0; i+1 < len(b); i++ {
		if b[i] != keyMark {
			account = append(account, b[i])
			continue
		}
		switch i++; b[i] {
		case keyZero:
			account = append(account, keyMark)
		case keySep:
			return events.CallKey{Account: string(account), Call: string(b[i+1:])}, nil
		default:
			return events.CallKey{}, fmt.Errorf("%w: call key %q", store.ErrDamaged, b)
		}
	}
	return events.CallKey{}, fmt.Errorf("%w: call key %q", store.ErrDamaged, b)
}

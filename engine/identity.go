package engine

import (
	"fmt"
	"slices"

	"github.com/callstate/callstate/events"
)

// freeKey is the identity for a new call: its id, or the id with the next number
// where the log knows an ended call of that id (design, Identity: an ended call
// never lives again).
func (k *correlator) freeKey(account, base string) events.CallKey {
	key := events.CallKey{Account: account, Call: base}
	for n := 2; ; n++ {
		if k.call(key) == nil {
			has, err := k.hasCall(key)
			if err != nil {
				k.err = fmt.Errorf("look up call %s: %w", key, err)
				return key
			}
			if !has {
				return key
			}
		}
		key.Call = fmt.Sprintf("%s-%d", base, n)
	}
}

// isRepeatOf reports whether id is base with a number, as freeKey makes it.
func isRepeatOf(id, base string) bool {
	return len(id) > len(base)+1 && id[:len(base)] == base && id[len(base)] == '-'
}

// liveCall finds a live call of the account by its id, an alias, or the id that
// its number was added to.
func (k *correlator) liveCall(account, id string) *callRef {
	for _, c := range k.agent(account).calls {
		if c.id == id || slices.Contains(c.more().aliases, id) || isRepeatOf(c.id, id) {
			return c
		}
	}
	return nil
}

// parentCall finds the call that a consultation names: by id, alias or leg.
func (k *correlator) parentCall(account, name string) *callRef {
	if name == "" {
		return nil
	}
	if c := k.liveCall(account, name); c != nil {
		return c
	}
	for _, c := range k.agent(account).calls {
		for _, l := range c.legs {
			if l.id == name || l.otherLeg == name || l.partner == name {
				return c
			}
		}
	}
	return nil
}

func (c *callRef) alive() int {
	n := 0
	for _, l := range c.legs {
		if !l.ended {
			n++
		}
	}
	return n
}

// winner is the leg that answered first, ended or not.
func (c *callRef) winner() *leg {
	for _, l := range c.legs {
		if l.answered {
			return l
		}
	}
	return nil
}

// primaryLeg is the answered leg, else the first that is alive, else the first.
func (c *callRef) primaryLeg() *leg {
	var alive *leg
	for _, l := range c.legs {
		if l.ended {
			continue
		}
		if l.answered {
			return l
		}
		if alive == nil {
			alive = l
		}
	}
	switch {
	case alive != nil:
		return alive
	case c.winner() != nil:
		return c.winner()
	case len(c.legs) > 0:
		return c.legs[0]
	default:
		return nil
	}
}

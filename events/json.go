package events

import (
	"encoding/json"
	"errors"
	"fmt"
)

// envelope is an Event's fields without its methods.
type envelope Event

type eventJSON struct {
	envelope
	Type Type            `json:"type"`
	Data json.RawMessage `json:"data"`
}

// MarshalJSON writes the envelope with "type" and, as "data", the payload. The
// schemas describe this form.
func (e Event) MarshalJSON() ([]byte, error) {
	if e.Payload == nil {
		return nil, fmt.Errorf("%w: none", ErrUnregistered)
	}
	return json.Marshal(struct {
		envelope
		Type Type    `json:"type"`
		Data Payload `json:"data"`
	}{envelope(e), e.Type(), e.Payload})
}

// UnmarshalJSON reads what MarshalJSON wrote. Every error matches [ErrCorrupt].
func (e *Event) UnmarshalJSON(b []byte) error {
	var in eventJSON
	if err := json.Unmarshal(b, &in); err != nil {
		return errors.Join(fmt.Errorf("%w event", ErrCorrupt), err)
	}
	if in.Type == "" {
		return fmt.Errorf("%w event: no type", ErrCorrupt)
	}
	var data any
	pl := plansByType[in.Type]
	switch {
	case pl == nil || in.Version > pl.version:
		data = &Unknown{Name: in.Type}
	case pl.older[in.Version] != nil:
		data = pl.older[in.Version].new()
	default:
		data = pl.new()
	}
	if len(in.Data) > 0 {
		if err := json.Unmarshal(in.Data, data); err != nil {
			return errors.Join(fmt.Errorf("%w %s", ErrCorrupt, in.Type), err)
		}
	}
	*e = Event(in.envelope)
	if old, ok := data.(Older); ok {
		e.upcast(pl.version, old)
	} else {
		e.Payload = data.(Payload)
	}
	return nil
}

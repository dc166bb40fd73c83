package webiteltest

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// Load is what the server path carries for many calls at once, rendered before it
// is needed: WebSocket frames as they go over the wire. Sending it costs a
// write and nothing else, so that what is measured is the receiver.
type Load struct {
	wire   []byte
	frames []wireFrame
}

// wireFrame is a frame's place in wire: its header begins at from, its payload at
// payload.
type wireFrame struct{ from, payload, to int }

// Len is the number of frames.
func (l *Load) Len() int { return len(l.frames) }

// Bytes is the size of all frames.
func (l *Load) Bytes() int { return len(l.wire) }

// Buffer is what the load is rendered in, to be given to the next one when this
// is no longer needed.
func (l *Load) Buffer() []byte { return l.wire }

// Payload is the text of frame i. It is valid until the load is rendered anew.
func (l *Load) Payload(i int) []byte { return l.wire[l.frames[i].payload:l.frames[i].to] }

// LoadOptions says what a load is made of.
type LoadOptions struct {
	Scenarios []*Scenario // played in turn; default [Mix]
	Agents    []string    // numbers that take the calls, one call at a time each
	Domain    string      // of the agents
	AtOnce    int         // calls under way at a time, if there are agents for them
	Calls     int         // how many are begun; 0: as many as it takes
	Frames    int         // no call begins after this many; 0: no limit
	Bytes     int         // nor after this many bytes; 0: no limit
	// Until ends each call before the first event of this name, such as
	// CHANNEL_HANGUP, so that it stays up; empty plays it to its end.
	Until string
	Seed  uint64 // ids are the same each time; 0 makes them random
	// Buffer is written to, if it is large enough.
	Buffer []byte
}

// loadPlaying is one call of a load.
type loadPlaying struct {
	sc      *Scenario
	filling *filling
	numbers map[string]string
	next    int
}

// Render renders a load. Its legs are not those of the server: no command finds
// them. Ids and sequence numbers are new each time.
func (s *Server) Render(opts LoadOptions) (*Load, error) {
	if opts.Scenarios == nil {
		var err error
		if opts.Scenarios, err = Mix(); err != nil {
			return nil, err
		}
	}
	if opts.Calls == 0 && opts.Frames == 0 && opts.Bytes == 0 {
		return nil, fmt.Errorf("webiteltest: a load without end")
	}
	var rnd *rand.Rand
	if opts.Seed != 0 {
		rnd = rand.New(rand.NewPCG(opts.Seed, 0))
	}
	l := &Load{wire: opts.Buffer[:0]}
	free := slices.Clone(opts.Agents)
	var up []*loadPlaying
	begun := 0
	more := func() bool {
		return (opts.Calls == 0 || begun < opts.Calls) && (opts.Frames == 0 || len(l.frames) < opts.Frames) &&
			(opts.Bytes == 0 || len(l.wire) < opts.Bytes)
	}
	now := time.Now().UnixMicro()
	for {
		for len(up) < max(opts.AtOnce, 1) && more() {
			sc := opts.Scenarios[begun%len(opts.Scenarios)]
			if len(free) < len(sc.Agents) {
				if len(up) == 0 {
					return nil, fmt.Errorf("webiteltest: %s needs %d agents", sc.Name, len(sc.Agents))
				}
				break
			}
			numbers := castOf(sc, free, begun)
			free = free[len(sc.Agents):]
			begun++
			seq := s.sequence.Add(sc.seqN) - sc.seqN + 1
			up = append(up, &loadPlaying{
				sc: sc, numbers: numbers,
				filling: sc.fill(s.Core(), now-sc.took.Microseconds()-sc.first, seq, numbers, opts.Domain, rnd),
			})
		}
		if len(up) == 0 {
			return l, nil
		}
		// One event of each call in turn, as when they go on side by side.
		up = slices.DeleteFunc(up, func(p *loadPlaying) bool {
			if p.next < len(p.sc.steps) && (opts.Until == "" || p.sc.steps[p.next].name != opts.Until) {
				l.add(&p.sc.steps[p.next], p.filling)
				p.next++
				return false
			}
			for _, a := range p.sc.Agents {
				free = append(free, p.numbers[a])
			}
			return true
		})
	}
}

// castOf gives a scenario's parts the first free agents.
func castOf(sc *Scenario, free []string, call int) map[string]string {
	numbers := sc.outside(call)
	for i, part := range sc.Agents {
		numbers[part] = free[i]
	}
	return numbers
}

// add renders one event, if the server path carries it to who watches the domain.
func (l *Load) add(st *step, f *filling) {
	ev := st.event(f)
	name := "SE:" + ev.name
	if ev.custom || !slices.Contains(serverNames, name) || ev.data == "" || ev.data != ev.domain {
		return
	}
	b := serverBytes(ev.full)
	w := wireFrame{from: len(l.wire)}
	const fin, text = 0x80, 0x01
	l.wire = append(l.wire, fin|text)
	switch n := len(b); {
	case n < 126:
		l.wire = append(l.wire, byte(n))
	case n < 1<<16:
		l.wire = binary.BigEndian.AppendUint16(append(l.wire, 126), uint16(n))
	default:
		l.wire = binary.BigEndian.AppendUint64(append(l.wire, 127), uint64(n))
	}
	w.payload = len(l.wire)
	l.wire = append(l.wire, b...)
	w.to = len(l.wire)
	l.frames = append(l.frames, w)
}

// Send writes frames from to to-1 of a load to the one socket of an account, each
// with a write of its own, as a server does that has one event at a time. before,
// if not nil, is called before each with its number.
func (s *Server) Send(login string, l *Load, from, to int, before func(i int)) error {
	var k *socket
	s.mu.Lock()
	for other := range s.sockets {
		if other.user != nil && other.user.login == login {
			k = other
		}
	}
	s.mu.Unlock()
	if k == nil {
		return fmt.Errorf("webiteltest: %s has no socket", login)
	}
	raw := k.ws.NetConn()
	for i := from; i < to; i++ {
		if before != nil {
			before(i)
		}
		f := &l.frames[i]
		k.writing.Lock()
		_, err := raw.Write(l.wire[f.from:f.to])
		k.writing.Unlock()
		if err != nil {
			return fmt.Errorf("webiteltest: send: %w", err)
		}
	}
	s.sent[ServerPath].Add(uint64(to - from))
	return nil
}

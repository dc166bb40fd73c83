// Package natsbus is the way out to NATS: the CTI events on a JetStream stream,
// the latest views of calls and lines in two KV buckets, queries as a NATS micro
// service, and a nats-server inside the process for those who have none.
// SUBJECTS.md lists the subjects, payloads, headers and keys.
//
// # What is ordered
//
// The CTI events are sent in order of position, each once for as long as the
// connection and the server hold, so the stream has the events of an account in
// the order of lineSeq and those of a call in the order of seq. Between two
// instances with different logs under one prefix nothing is ordered.
//
// The views are conflated: at most one write a key and flush interval, each with
// the position it reflects. A key's position never goes back, also across
// restarts of a log, but it can jump. A view may be written before or after the
// CTI events it follows from reach the stream.
//
// # What can repeat
//
// Delivery to the stream is at least once, and repeats are removed twice over:
// JetStream drops an id (<log>.<position>.<n>) that it has seen in the last two
// minutes, and each time the bus becomes ready it reads back the ids at the end
// of the stream and does not send those again. What remains is a server whose
// own store lost its end (a power loss without SyncAlways, or the end of this
// process with the server in it), where the repeats fill the gap, and more than
// twice the window of other logs' messages in between an outage of over two
// minutes. A stream that refuses single messages can store a repeat after its
// successors; seq shows it.
//
// A message that is too large for the server is the one thing left out: it is
// logged, counted as rejected, and visible to a consumer as a gap in seq, which
// the history service fills.
//
// # Who waits
//
// Publish waits while the window of unconfirmed messages is full, for nothing
// else; views never make it wait. Confirmed, and with it Flush, waits for both:
// a position is confirmed when its CTI events are in the stream and its views,
// or later ones, in their buckets. So a crash between the two leaves no stale
// view behind: the engine publishes again from Confirmed()+1.
//
// Under load the stream is asked to confirm one message in 32. Its sequence tells
// whether those before it are there; where it does not, since others write to the
// stream as well, or it refused one, those are sent again, each with a
// confirmation of its own, which from then on every message gets.
//
// A lost connection, a refusal, or no confirmation for AckTimeout makes the bus
// not ready. If Publish is called meanwhile it returns an error at once, and
// from then on the messages are its caller's to publish again after Ready. If
// nobody calls, Run makes the bus ready and sends what was unconfirmed again.
//
// # Goroutines
//
// Run, on a goroutine of the caller's choice, owns the writing of views. The
// connection has its own: one takes the confirmations of messages, one those of
// views, one calls the connection's handlers, and each endpoint of the services
// takes requests on one, which are answered each on a goroutine of its own: 32
// queries and 256 requests to the PBX at once, and 4 queries about one account or
// domain. Close of the bus ends the connection's and waits for that;
// Close of the service waits for requests under way.
package natsbus

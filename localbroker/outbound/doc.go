// Package outbound is what the broker sends to one client: the window of
// messages at QoS 1 and 2 that are not acknowledged, what waits behind it, and
// the topic aliases.
//
// Messages come in from package board (Session.Send) or, for stored sessions,
// out of the session log; acknowledgements of the client come in through
// Session.Acknowledge; packets go out through a Link.
//
// It never writes to the network itself, never waits for a client, and never
// holds more of a volatile session than its bound.
package outbound

// Package localbroker is the MQTT broker inside the gateway, for the machines
// beside it: panels, flow programs, sensors that speak MQTT themselves. It
// speaks MQTT 3.1, 3.1.1 and 5 at all QoS.
//
// What comes in: mapped records, through Broker.Record, and the messages of
// LAN clients, through listeners. What goes out: every record and every
// message of a client under the configured LAN filters, appended to the log
// before anything else happens to it; the values of the points and the
// messages of clients, live and retained, to LAN subscribers and to
// Broker.Subscribe; and the acknowledgement of a message after everything
// that has to be stored of it is, never before.
//
// A session that outlives its connection is stored where the broker has a
// folder: what it is to get at QoS 1 and 2 waits for it in the session log, a
// log like that of the upstreams with bounds of its own. Other sessions, and
// QoS 0, are in memory.
//
// The parts: package wire takes packets apart and puts them together, topics
// knows who subscribed to what, access who may do what, board carries messages
// to subscribers, outbound sends to one of them, state keeps what outlives the
// process. Here are the connections, the sessions and the order in which
// things are stored, delivered and acknowledged; see DESIGN.md.
//
// What it never does: listen beyond loopback without authentication, let one
// client delay another, hold up the way to the upstream because of a listener,
// acknowledge a message that is not yet where its level promises.
package localbroker

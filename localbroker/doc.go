// Package localbroker is the MQTT broker inside the gateway, for the machines
// beside it: panels, flow programs, sensors that speak MQTT themselves.
//
// What comes in: mapped records, through Broker.Record, and the messages of
// LAN clients, through listeners. What goes out: every record and every
// message of a client under the configured LAN filters, appended to the log
// before anything else happens to it; the values of the points as live and
// retained messages to LAN subscribers; and the acknowledgement of a LAN
// message after the log has taken it, never before.
//
// MQTT 3.1, 3.1.1 and 5 are decoded and the sessions are kept by mochi-mqtt.
// Each connection reaches it through a guard that has checked every packet
// first, and it delivers nothing itself: fan-out, retained messages, wills
// and acknowledgements are ours, see DESIGN.md.
//
// What it does not promise yet. A subscription is granted QoS 0 whatever was
// asked for, and the SUBACK says so [MQTT-3.9.3]: a subscriber gets each
// message at most once while it is connected, and the newest retained value
// of each topic when it subscribes. A session that was asked to outlive its
// connection keeps its subscriptions, in memory, and no messages. Retained
// messages of clients are in memory. Topic aliases and enhanced
// authentication are refused. Publishing at QoS 1 and 2 is complete.
//
// What it never does: listen beyond loopback without authentication, hand a
// packet to the decoder that has not been checked, let one client delay
// another, hold up the way to the upstream because of a listener, acknowledge
// a LAN message that the log has not taken.
package localbroker

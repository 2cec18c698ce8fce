// Package wire knows MQTT 3.1, 3.1.1 and 5 as bytes: what a server reads from
// and writes to one client [MQTT-2.1]. Bytes of a connection go into a
// Decoder and come out as packets that keep every rule of the standard that
// can be seen on the one connection, or as a Refusal. It never reads from or
// writes to a connection, knows no session and no other client, and holds no
// more than the limits say.
//
//	+-----------------+----------------------+--------------------+
//	| type 4, flags 4 | remaining length 1-4 | body, "remaining"  |
//	+-----------------+----------------------+--------------------+
package wire

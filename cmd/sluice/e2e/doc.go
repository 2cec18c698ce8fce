// Package e2e holds the proofs that nothing is lost on the way from a register
// to an upstream. In come polls, counted independently of the gateway; out come
// verdicts of a ledger on what arrived. It holds tests only, and no part of the
// product imports it.
//
// Two rigs share the ledger. One runs mapping, log and upstream in virtual time
// over net.Pipe to a broker of its own, which makes days of outages cheap and
// lets the clock of the machine be wrong. The other runs the program as a child
// process between the simulator and Mosquitto behind a proxy that cuts
// connections, and kills it. As an edge node of Sparkplug the program has a rig
// and a judge of its own: a strict host that reads through Eclipse Tahu.
package e2e

// Package modbussim simulates Modbus devices: what `sluice simulate` and the
// demo run, and the peer of the tests. In come requests of clients, over TCP,
// RTU in TCP, pseudo-terminals it opens itself, or serial ports; out go the
// replies of the units it was given or, where a fault rule says so, what a
// broken device sends. It never opens a connection of its own, and nothing that
// a client sends can make it fail or grow without bound.
//
// # Design
//
// A Server has units and ports. Every port reaches every unit, as behind a
// gateway. A Unit has four tables of registers, defined one by one: fixed (Set,
// LoadDump), computed from the time (Generate) or counting reads (CountReads).
//
//	port ── frame ──> unit ── proper reply ──> rules ── plan ──> carrier ── bytes ──>
//	tcp.go, rtu.go    pdu.go                   fault*.go         carrier.go
//
// A rule turns the proper reply into a plan: bytes, pauses, and a close. The
// carrier of the connection executes plans, on an RTU line at the speed of the
// wire: bytes pass a pseudo-terminal at once, so the time of request and reply
// is spent here. The reply begins after the wire time of the request and the
// longer of think time and silent interval; its bytes come in portions of 8, as
// from a UART with FIFO. Late replies leave the line to others meanwhile.
//
// Requests are noted before faults (Requests, Counts, Config.OnRequest), which
// makes the simulator an independent witness of what a gateway asked and was
// told.
//
// Everything that waits uses package time, so that a connection made by
// net.Pipe and served by ServeTCPConn or ServeRTU works under testing/synctest.
//
// Alternatives: diagslave and the servers of pymodbus and libmodbus stand for
// the real world in the peer tests, but cannot misbehave on demand.
package modbussim

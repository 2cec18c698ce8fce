// Package link carries Modbus PDUs over one line: RTU on a serial port, Modbus
// TCP, or RTU frames over TCP. A unit id and a request PDU come in; the reply
// PDU of just that request goes out, or an error that says why there is none.
//
// It opens the port or connection when the first request needs it, opens it
// again after it was lost, keeps the silent intervals and pauses of the line,
// and brings itself back into step after noise, echoes, late, duplicate, short
// and foreign replies. None of these ever becomes a value. It knows nothing of
// points, polls and schedules, never sends a request of its own account except
// the one read that Echo "auto" needs before a first write, and never repeats a
// write.
//
// The coding of frames is goburrow/modbus; see DESIGN.md for what is our own
// and why.
package link

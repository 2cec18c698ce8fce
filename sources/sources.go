// Package sources holds what every field source has in common: the sample it
// delivers, the value, quality and time in it, and the Source interface. It
// knows no protocol, opens nothing, and imports nothing of this module.
package sources

import (
	"context"
	"strconv"
	"time"
)

// Quality says how far a sample may be believed. The zero Quality is Bad, so
// that a forgotten field never passes for a good value.
type Quality uint8

// The qualities. The numbers are stored on disk: never renumber, only append.
const (
	Bad       Quality = 0 // no value could be had; Sample.Reason says why
	Uncertain Quality = 1 // read correctly, but outside its plausible range
	Stale     Quality = 2 // an older value held beyond its time
	Good      Quality = 3
)

// String returns "bad", "uncertain", "stale" or "good", as payloads show it.
func (q Quality) String() string {
	switch q {
	case Good:
		return "good"
	case Stale:
		return "stale"
	case Uncertain:
		return "uncertain"
	}
	return "bad"
}

// Reason says why a sample is not good. The zero Reason is "none given".
// Reasons from 128 are Modbus exceptions: 128 + exception code.
type Reason uint8

// The reasons. The numbers are stored on disk: never renumber, only append. 8
// and 9 were never used; they stay free.
const (
	ReasonNone         Reason = 0
	ReasonTimeout      Reason = 1  // the device did not answer in time
	ReasonNotConnected Reason = 2  // port or host cannot be reached
	ReasonFrame        Reason = 3  // answers came, but damaged or not to the question
	ReasonInvalid      Reason = 4  // the device sent its "not available" marker
	ReasonRange        Reason = 5  // outside the plausible range
	ReasonType         Reason = 6  // cannot be read as the type asked for (BCD, enum, text)
	ReasonDisabled     Reason = 7  // device disabled by a configuration error
	ReasonShutdown     Reason = 10 // the gateway stops
	ReasonStale        Reason = 11 // nothing came for longer than the point allows
	ReasonOffline      Reason = 12 // the device, or who speaks for it, says that it is away
	ReasonPayload      Reason = 13 // a message came, and the value is not to be found in it
	ReasonRetained     Reason = 14 // a stored message of unknown age, of quality Stale
	reasonException    Reason = 128
)

// ReasonException returns the Reason for a Modbus exception code (1 to 127).
func ReasonException(code uint8) Reason { return reasonException | Reason(code&0x7f) }

// Exception returns the Modbus exception code of r, and false if r is none.
func (r Reason) Exception() (code uint8, ok bool) {
	return uint8(r) & 0x7f, r >= reasonException
}

// String returns the short lower-case word for payloads and status, such as
// "timeout" or "exception 2".
func (r Reason) String() string {
	if code, ok := r.Exception(); ok {
		return "exception " + strconv.Itoa(int(code))
	}
	names := [...]string{"", "timeout", "not connected", "bad frame", "invalid", "out of range",
		"wrong type", "disabled", "", "", "shutdown", "stale", "offline", "bad payload", "retained"}
	if int(r) < len(names) && (r == ReasonNone || names[r] != "") {
		return names[r]
	}
	return "reason " + strconv.Itoa(int(r))
}

// Sample is one reading of one point. A read that failed is a Sample of bad
// Quality with a Reason, never a missing Sample.
type Sample struct {
	// Point is the number under which whoever configured the source asked
	// for the point.
	Point   uint32
	Value   Value
	Quality Quality
	Reason  Reason
	// Stamp is the moment the reply was complete, or the read was given up.
	Stamp Stamp
}

// Stamp is a moment as the gateway's clocks knew it.
type Stamp struct {
	// Wall is the system clock: nanoseconds since 1970-01-01 UTC.
	Wall int64
	// Mono is a clock that never jumps: nanoseconds since the boot of the
	// machine. Only differences within one boot mean anything.
	Mono int64
	// Trusted says that Wall could be believed when the Stamp was taken.
	Trusted bool
}

// Time returns Wall as a UTC time.
func (s Stamp) Time() time.Time { return time.Unix(0, s.Wall).UTC() }

// Clock gives stamps. Implementations are safe for concurrent use.
type Clock interface {
	// Now returns the present moment.
	Now() Stamp
	// Boot identifies the boot of the machine: equal for all processes and
	// Stamps of one boot, different after the next.
	Boot() uint64
}

// Source reads a set of points from the field until its context ends.
type Source interface {
	// Name is unique in a site: the bus or connection the source owns.
	Name() string
	// Run polls and calls deliver once for each device and poll, from one
	// goroutine at a time, with every point of that poll in it. deliver does
	// not keep the slice. An error of deliver is a stage further right that
	// cannot take data now; the source goes on polling. Run returns nil once
	// ctx is done; another error means that the source can never work.
	Run(ctx context.Context, deliver func([]Sample) error) error
}

// DeviceState is the news that a device came up or went away.
type DeviceState struct {
	Device string
	Online bool
	Reason Reason // why it is offline; ReasonNone when online
	Stamp  Stamp  // since when
}

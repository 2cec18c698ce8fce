package modbus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"sluice/sources"
	"sluice/sources/modbus/link"
	"sluice/sources/register"
)

// Reader does one Modbus read at a time on one line. *link.Link satisfies it,
// and its errors are those a Reader returns.
type Reader interface {
	// Read returns the data bytes of the reply: registers big-endian, bits
	// packed with the first in the lowest bit. timeout is what a unit may take
	// to begin its reply. The caller is done with the bytes before it calls
	// Read again.
	Read(ctx context.Context, unit uint8, t register.Table, addr, quantity uint16,
		timeout time.Duration) ([]byte, error)
}

// resting is a Reader that keeps off a unit for a while, after a reply that may
// still be on its way. Others are asked meanwhile.
type resting interface {
	ReadyAt(unit uint8) time.Time
}

// idling is a Reader that wants to know when no request follows for a while.
type idling interface{ EndPoll() }

var (
	_ Reader  = (*link.Link)(nil)
	_ resting = (*link.Link)(nil)
	_ idling  = (*link.Link)(nil)
)

// Config says what a Bus polls and how. The zero values of Log and OnState
// mean silence; Name, Link and Clock are needed.
type Config struct {
	// Name is the name of the bus, unique in a site.
	Name string
	// Link is the line. The Bus uses it from the goroutine of Run only and
	// does not close it.
	Link Reader
	// Line holds the figures of Link that the read planner counts with; see
	// LineOf.
	Line Line
	// Devices are polled in no particular order. Several may have the same
	// unit id.
	Devices []Device
	Clock   sources.Clock
	// OnState is told when a device answers for the first time, goes away or
	// comes back. It is called from the goroutine of Run and must not block.
	OnState func(sources.DeviceState)
	Log     *slog.Logger
}

// Device is one device on the bus: a unit id and the points read from it.
type Device struct {
	Name string
	Unit uint8
	// Timeout is how long a reply may take; 0 means DefaultTimeout.
	Timeout time.Duration
	// Retries is how often a request is repeated within a poll when no reply,
	// a damaged reply or "busy" came, 0 to 10. A device that is not known to
	// work gets none.
	Retries int
	// Pause is kept between two requests to this device. Other devices are
	// asked meanwhile.
	Pause  time.Duration
	Quirks Quirks
	Points []Point
}

// Quirks are limits of a device beyond those of the standard.
type Quirks struct {
	// MaxRegisters is the most registers one read may ask for, 1 to 125; 0
	// means 125.
	MaxRegisters int
	// MaxBits is the most coils or discrete inputs one read may ask for, 1 to
	// 2000; 0 means 2000.
	MaxBits int
	// MaxGap is the most registers or bits that a read may contain between two
	// points although nobody asked for them. 0 leaves it to the cost of the
	// line, NoGap allows none.
	MaxGap int
	// Forbidden are addresses that must never be part of a read.
	Forbidden []Range
	// OneByOne reads each point with a request of its own.
	OneByOne bool
	// BitsFromZero starts every read of coils and discrete inputs at address
	// 0, as some controllers answer no other.
	BitsFromZero bool
}

// NoGap as Quirks.MaxGap allows no register in a read that nobody asked for.
const NoGap = -1

// Range is a range of addresses of one table, both ends included.
type Range struct {
	Table       register.Table
	First, Last uint16
}

// Point is one value to be read.
type Point struct {
	// ID is returned as Sample.Point.
	ID uint32
	// Name is for status and logs.
	Name string
	register.Point
	// Every is the interval between two polls, 10 ms or more.
	Every time.Duration
	// Write says how the point is written; nil: never.
	Write *Writing
}

// DefaultTimeout is how long a reply may take when the device does not say.
const DefaultTimeout = time.Second

// minEvery keeps a typing error from turning a bus into a busy loop.
const minEvery = 10 * time.Millisecond

const maxRetries = 10

// limit returns the most values one read of t may ask for.
func (q Quirks) limit(t register.Table) int {
	most, own := t.MaxQuantity(), q.MaxRegisters
	if t.IsBit() {
		own = q.MaxBits
	}
	if own > 0 && own < most {
		return own
	}
	return most
}

// timeout returns Timeout or its default.
func (d *Device) timeout() time.Duration {
	if d.Timeout <= 0 {
		return DefaultTimeout
	}
	return d.Timeout
}

// validate returns every problem of c at once, joined.
func (c *Config) validate() error {
	var errs []error
	if c.Name == "" {
		errs = append(errs, errors.New("bus has no name"))
	}
	if c.Link == nil {
		errs = append(errs, fmt.Errorf("bus %s has no link", c.Name))
	}
	if c.Clock == nil {
		errs = append(errs, fmt.Errorf("bus %s has no clock", c.Name))
	}
	return errors.Join(append(errs, validateDevices(c.Line, c.Devices))...)
}

func validateDevices(line Line, devices []Device) error {
	var errs []error
	seen := make(map[string]bool, len(devices))
	for i := range devices {
		d := &devices[i]
		if d.Name == "" || seen[d.Name] {
			errs = append(errs, fmt.Errorf("device %d: name %q is empty or used twice", i, d.Name))
		}
		seen[d.Name] = true
		if err := line.checkUnit(d.Unit); err != nil {
			errs = append(errs, fmt.Errorf("device %s: %w", d.Name, err))
		}
		if err := d.validate(); err != nil {
			errs = append(errs, fmt.Errorf("device %s: %w", d.Name, err))
		}
	}
	return errors.Join(errs...)
}

func (d *Device) validate() error {
	var errs []error
	if d.Retries < 0 || d.Retries > maxRetries {
		errs = append(errs, fmt.Errorf("retries %d is not 0 to %d", d.Retries, maxRetries))
	}
	if d.Timeout < 0 || d.Pause < 0 {
		errs = append(errs, errors.New("timeout and pause cannot be negative"))
	}
	if q := d.Quirks; q.MaxRegisters < 0 || q.MaxBits < 0 || q.MaxGap < NoGap {
		errs = append(errs, errors.New("limits of a read cannot be negative"))
	}
	for i := range d.Points {
		if err := d.Quirks.check(&d.Points[i]); err != nil {
			errs = append(errs, fmt.Errorf("point %s: %w", d.Points[i].Name, err))
		}
	}
	return errors.Join(errs...)
}

// check says whether p can be read at all within the limits q.
func (q Quirks) check(p *Point) error {
	if err := p.Validate(); err != nil {
		return err
	}
	if err := p.checkWriting(); err != nil {
		return err
	}
	if p.Every < minEvery {
		return fmt.Errorf("interval %v is shorter than %v", p.Every, minEvery)
	}
	size := p.Registers()
	if size > q.limit(p.Table) {
		return fmt.Errorf("needs %d registers in one read, the device allows %d", size, q.limit(p.Table))
	}
	for _, r := range q.Forbidden {
		if r.overlaps(p.Table, int(p.Address), int(p.Address)+size) {
			return fmt.Errorf("lies in the forbidden range %d..%d", r.First, r.Last)
		}
	}
	return nil
}

// overlaps reports whether r shares an address with from..to-1 of table t.
func (r Range) overlaps(t register.Table, from, to int) bool {
	return r.Table == t && from <= int(r.Last) && to > int(r.First)
}

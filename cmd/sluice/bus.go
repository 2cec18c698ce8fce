package main

import (
	"sluice/mapping"
	"sluice/sources/modbus"
	"sluice/sources/modbus/link"
)

// bus describes the line of m for the link and the planner, and says what is
// wrong with it.
func (s *site) bus(m *mapping.Bus) (bus, []link.FieldError) {
	c := link.Config{Baud: m.Baud, Pause: m.Pause, TurnAround: m.Turnaround, ConnectDelay: m.ConnectDelay,
		CloseWhenIdle: m.IdleClose, LowLatency: m.LowLatency, Units: map[uint8]link.Unit{}}
	switch m.Kind {
	case mapping.BusSerial:
		c.Serial = m.Address
	case mapping.BusTCP:
		c.TCP = m.Address
	case mapping.BusRTUOverTCP:
		c.RTUOverTCP = m.Address
	}
	if m.Format != (mapping.Format{}) {
		c.Format = m.Format.String()
	}
	if m.Echo {
		c.Echo = link.EchoYes
	}
	if m.RS485.Enabled {
		c.RS485 = &link.RS485{RTSOnSend: m.RS485.RTSHighOnSend, DelayBefore: m.RS485.DelayBefore,
			DelayAfter: m.RS485.DelayAfter, RXDuringTX: m.RS485.Receive}
	}
	for _, i := range m.Devices {
		// The slowest device to come up after opening decides for the line.
		c.ConnectDelay = max(c.ConnectDelay, s.model.Devices[i].Quirks.ConnectDelay)
	}
	c.SetDefaults()
	return bus{name: m.Name, link: c, line: modbus.LineOf(&c)}, c.Validate()
}

// device describes a device of the model for the bus.
func (s *site) device(index int) modbus.Device {
	m := &s.model.Devices[index]
	d := modbus.Device{Name: m.Name, Unit: m.Unit, Timeout: m.Timeout, Retries: m.Retries, Pause: m.Quirks.Pause,
		Quirks: modbus.Quirks{MaxRegisters: m.Quirks.MaxRegisters, MaxBits: m.Quirks.MaxBits,
			MaxGap: maxGap(m.Quirks.Gap), OneByOne: m.Quirks.OneByOne, BitsFromZero: m.Quirks.BitsFromZero}}
	for _, span := range m.Quirks.Forbidden {
		d.Quirks.Forbidden = append(d.Quirks.Forbidden, modbus.Range(span))
	}
	for _, p := range m.Points {
		r := &s.model.Points[p]
		point := modbus.Point{ID: uint32(p), Name: r.Name, Point: r.Point, Every: r.Every}
		if w := r.Write; w != nil {
			point.Write = &modbus.Writing{Function: w.Function, ReadBack: w.ReadBack}
		}
		d.Points = append(d.Points, point)
	}
	return d
}

// maxGap translates the gap of a profile, where -1 leaves it to the planner
// and 0 allows none.
func maxGap(gap int) int {
	switch {
	case gap < 0:
		return 0
	case gap == 0:
		return modbus.NoGap
	}
	return gap
}

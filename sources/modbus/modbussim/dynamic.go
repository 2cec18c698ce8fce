package modbussim

// dynamicValue is a value that is computed at each read. The mutex of its unit
// guards it.
type dynamicValue struct {
	value func() []uint16 // the registers as they are now
	next  func()          // called once before each read by a client, or nil
}

// peek returns the registers without counting a read.
func (d *dynamicValue) peek() []uint16 { return d.value() }

// take returns the registers for one read by a client.
func (d *dynamicValue) take() []uint16 {
	if d.next != nil {
		d.next()
	}
	return d.value()
}

package modbussim

// Identity is what a unit tells about itself by FC 17 (report server id) and
// FC 43/14 (read device identification). Texts beyond 200 bytes are cut. The
// zero Identity makes the unit answer both with exception 1.
type Identity struct {
	Vendor, Product, Revision string // objects 0, 1, 2 of FC 43/14
	ServerID                  byte   // FC 17
}

const maxIdentityText = 200

// reportServerID serves FC 17, Modbus Application Protocol V1.1b3 §6.13:
// server id, run indicator (0xFF = on), and the product as free text.
func (u *Unit) reportServerID(data []byte) ([]byte, byte) {
	identity, known := u.identification()
	if !known {
		return nil, illegalFunction
	}
	if len(data) != 0 {
		return nil, illegalDataValue
	}
	text := cut(identity.Product)
	return append([]byte{byte(2 + len(text)), identity.ServerID, 0xFF}, text...), 0
}

// readIdentification serves FC 43 with MEI type 14, §6.21: the three basic
// objects, as a stream (code 1 to 3) or one at a time (code 4). Objects that
// do not fit are announced by "more follows" and the next object id.
func (u *Unit) readIdentification(data []byte) ([]byte, byte) {
	identity, known := u.identification()
	if !known || len(data) == 0 || data[0] != 0x0E {
		return nil, illegalFunction
	}
	if len(data) != 3 {
		return nil, illegalDataValue
	}
	code, first := data[1], int(data[2])
	objects := []string{cut(identity.Vendor), cut(identity.Product), cut(identity.Revision)}
	const conformity = 0x81 // basic objects, stream and individual access
	switch {
	case code < 1 || code > 4:
		return nil, illegalDataValue
	case code == 4 && first >= len(objects):
		return nil, illegalDataAddress
	case code == 4:
		reply := []byte{0x0E, code, conformity, 0, 0, 1, byte(first), byte(len(objects[first]))}
		return append(reply, objects[first]...), 0
	case first >= len(objects):
		first = 0 // §6.21: an unknown object id restarts at the beginning
	}
	reply := []byte{0x0E, code, conformity, 0, 0, 0}
	for id := first; id < len(objects); id++ {
		if 1+len(reply)+2+len(objects[id]) > maxPDU {
			reply[3], reply[4] = 0xFF, byte(id)
			break
		}
		reply = append(reply, byte(id), byte(len(objects[id])))
		reply = append(reply, objects[id]...)
		reply[5]++
	}
	return reply, 0
}

func (u *Unit) identification() (Identity, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.identity, u.identity != Identity{}
}

func cut(s string) string {
	return s[:min(len(s), maxIdentityText)]
}

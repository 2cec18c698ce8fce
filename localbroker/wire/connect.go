package wire

import "bytes"

// Connect is a CONNECT [MQTT-3.1]. It owns its memory.
type Connect struct {
	Version                  byte   // 3 is MQTT 3.1, 4 is 3.1.1, 5 is 5
	ClientID                 string // may be empty, not in 3.1 nor in 3.1.1 without CleanStart
	CleanStart               bool
	KeepAlive                uint16 // seconds; 0: none
	Username                 string
	Password                 []byte
	HasUsername, HasPassword bool
	Will                     *Will // nil: none

	// SessionExpiry is how long the session is to outlive the connection,
	// seconds; 0xFFFFFFFF for ever. In MQTT 3 clean session says it: 0 or
	// for ever.
	SessionExpiry  uint32
	ReceiveMaximum uint16 // messages at QoS 1 and 2 the client takes at a time; 65,535 unless said
	MaxPacket      uint32 // bytes of the largest packet it takes; 0: no bound
	AliasMax       uint16 // topic aliases it takes; 0: none
	ProblemInfo    bool   // reason strings may be sent [MQTT-3.1.2-29]
	AuthMethod     string // of enhanced authentication; empty: none
	HasAuthMethod  bool
	AuthData       []byte
}

// The flags of a CONNECT [MQTT-3.1.2.3].
const (
	flagReserved   = 0x01
	flagCleanStart = 0x02
	flagWill       = 0x04
	flagWillQoS    = 0x18
	flagWillRetain = 0x20
	flagPassword   = 0x40
	flagUsername   = 0x80
)

// connect reads a CONNECT [MQTT-3.1].
func (d *Decoder) connect(first byte, r *reader, p *Packet) *Refusal {
	name, version := r.bytes(), r.byte()
	if r.bad {
		return nil
	}
	if refused := protocol(name, version); refused != nil {
		d.version = answerVersion(version)
		return refused
	}
	d.version = version
	switch {
	case first&0x0f != 0 && version > 3:
		return malformed("reserved flags") // [MQTT-2.1.3-1]
	case d.padded && version == 5:
		return malformed("a length of more bytes than it needs") // [MQTT-1.5.5-1]
	}
	flags := r.byte()
	if refused := connectFlags(version, flags); refused != nil {
		return refused
	}
	c := &Connect{Version: version, CleanStart: flags&flagCleanStart != 0, KeepAlive: r.uint16(),
		ReceiveMaximum: 65535, ProblemInfo: true}
	p.Connect = c
	if refused := c.properties(r); refused != nil {
		return refused
	}
	if refused := c.clientID(r.text()); refused != nil && !r.bad {
		return refused
	}
	if flags&flagWill != 0 {
		if refused := d.will(c, flags, r); refused != nil {
			return refused
		}
	}
	if c.HasUsername = flags&flagUsername != 0; c.HasUsername {
		user := r.text()
		if !controlFree(user) {
			return malformed("control characters in the user name")
		}
		c.Username = string(user)
	}
	if c.HasPassword = flags&flagPassword != 0; c.HasPassword {
		c.Password = bytes.Clone(r.bytes())
	}
	d.sessionExpiry = c.SessionExpiry
	return nil
}

// protocol checks name and level of the protocol [MQTT-3.1.2-1]
// [MQTT-3.1.2-2].
func protocol(name []byte, version byte) *Refusal {
	switch {
	case string(name) == "MQIsdp" && version == 3, string(name) == "MQTT" && (version == 4 || version == 5):
		return nil
	case string(name) == "MQIsdp" || string(name) == "MQTT":
		return &Refusal{RefusedMalformed, CodeUnsupportedVersion, "no MQTT 3.1, 3.1.1 or 5"}
	}
	return violation("another protocol")
}

// answerVersion returns the version in which a client of an unknown one is
// answered. Mosquitto's bridges set the highest bit and ask again without it
// if the answer is that of MQTT 3.1.1.
func answerVersion(version byte) byte {
	if v := version &^ 0x80; v >= 3 && v <= 5 {
		return 4
	}
	return 5
}

// connectFlags checks the flags of a CONNECT.
func connectFlags(version, flags byte) *Refusal {
	switch {
	case flags&flagReserved != 0 && version > 3:
		return malformed("the reserved connect flag") // [MQTT-3.1.2-3]
	case flags&flagWill == 0 && flags&(flagWillQoS|flagWillRetain) != 0:
		return malformed("will flags without a will") // [MQTT-3.1.2-11] [MQTT-3.1.2-13]
	case flags&flagWillQoS == flagWillQoS:
		return malformed("will with QoS 3") // [MQTT-3.1.2-12]
	case version < 5 && flags&flagUsername == 0 && flags&flagPassword != 0:
		return malformed("a password without a user name") // [MQTT-3.1.2-22] of 3.1.1
	}
	return nil
}

// properties reads the properties of MQTT 5 and sets what stands for them
// before.
func (c *Connect) properties(r *reader) *Refusal {
	if c.Version < 5 {
		if !c.CleanStart {
			c.SessionExpiry = 0xffffffff
		}
		return nil
	}
	var ps properties
	if refused := r.properties(propsOfConnect, &ps); refused != nil {
		return refused
	}
	if ps.present.has(propAuthData) && !ps.present.has(propAuthMethod) {
		return violation("authentication data without a method") // [MQTT-3.1.2.11.10]
	}
	c.SessionExpiry, c.MaxPacket, c.AliasMax = ps.sessionExpiry, ps.maxPacket, ps.aliasMax
	if ps.present.has(propReceiveMaximum) {
		c.ReceiveMaximum = ps.receiveMaximum
	}
	c.ProblemInfo = !ps.noProblem
	c.HasAuthMethod = ps.present.has(propAuthMethod)
	c.AuthMethod, c.AuthData = string(ps.authMethod), bytes.Clone(ps.authData)
	return nil
}

// clientID checks and takes the client identifier [MQTT-3.1.3.1].
func (c *Connect) clientID(id []byte) *Refusal {
	switch {
	case len(id) > maxClientID:
		return &Refusal{RefusedMalformed, CodeClientID, "client identifier too long"}
	case !controlFree(id):
		return &Refusal{RefusedMalformed, CodeClientID, "control characters in the client identifier"}
	case len(id) == 0 && (c.Version == 3 || c.Version == 4 && !c.CleanStart):
		return &Refusal{RefusedMalformed, CodeClientID, "no client identifier"} // [MQTT-3.1.3-8] of 3.1.1
	}
	c.ClientID = string(id)
	return nil
}

// will reads the will [MQTT-3.1.3.2] to [MQTT-3.1.3.4].
func (d *Decoder) will(c *Connect, flags byte, r *reader) *Refusal {
	var ps properties
	if c.Version == 5 {
		if refused := r.properties(propsOfWill, &ps); refused != nil {
			return refused
		}
	}
	topic := r.bytes()
	payload := r.bytes()
	if r.bad {
		return nil
	}
	name, refused := d.name(topic)
	if refused != nil {
		return refused
	}
	w := &Will{
		Message: Message{Topic: name, Payload: bytes.Clone(payload), Props: bytes.Clone(ps.passed),
			QoS: flags & flagWillQoS >> 3, Retain: flags&flagWillRetain != 0, Origin: c.ClientID},
		Delay: ps.willDelay, Expiry: ps.messageExpiry, HasExpiry: ps.present.has(propMessageExpiry),
	}
	c.Will = w
	return ps.payload(payload)
}

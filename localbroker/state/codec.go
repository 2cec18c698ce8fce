package state

import (
	"bytes"
	"encoding/binary"
	"errors"
	"time"
)

// recordVersion is the first byte of every value.
const recordVersion = 1

// errRecord: a value that this version cannot read.
var errRecord = errors.New("not a record of this version")

// encoder appends the fields of a record.
type encoder struct{ b []byte }

func newEncoder(size int) *encoder {
	return &encoder{b: append(make([]byte, 0, size+32), recordVersion)}
}

func (e *encoder) number(v uint64) { e.b = binary.AppendUvarint(e.b, v) }
func (e *encoder) bytes(v []byte)  { e.number(uint64(len(v))); e.b = append(e.b, v...) }
func (e *encoder) text(v string)   { e.number(uint64(len(v))); e.b = append(e.b, v...) }
func (e *encoder) byte(v byte)     { e.b = append(e.b, v) }

// name writes a name that the key does not hold.
func (e *encoder) name(v string) {
	if len(v) <= longName {
		v = ""
	}
	e.text(v)
}

// decoder reads them back. After the first error it returns zeros.
type decoder struct {
	b   []byte
	bad bool
}

func newDecoder(value []byte) *decoder {
	d := &decoder{b: value}
	d.bad = d.byte() != recordVersion
	return d
}

func (d *decoder) number(most uint64) uint64 {
	v, n := binary.Uvarint(d.b)
	if d.bad || n <= 0 || v > most || n > 1 && d.b[n-1] == 0 {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) take(n uint64) []byte {
	if d.bad || n > uint64(len(d.b)) {
		d.bad = true
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

// bytes returns a copy, nil if there are none.
func (d *decoder) bytes() []byte { return append([]byte(nil), d.take(d.number(MaxValue))...) }
func (d *decoder) text() string  { return string(d.take(d.number(MaxValue))) }

func (d *decoder) byte() byte {
	if v := d.take(1); v != nil {
		return v[0]
	}
	return 0
}

// upTo returns a byte that is at most most.
func (d *decoder) upTo(most byte) byte {
	v := d.byte()
	d.bad = d.bad || v > most
	return v
}

// name returns the name that p holds, or else the one in the record.
func (d *decoder) name(p part) string {
	v := d.text()
	if len(v) == 0 {
		v = p.name
	}
	d.bad = d.bad || !bytes.Equal(appendName(nil, v), p.key) || len(v) <= longName && v != p.name
	return v
}

// done returns errRecord unless everything was there and nothing is left.
func (d *decoder) done(ok bool) error {
	if d.bad || !ok || len(d.b) > 0 {
		return errRecord
	}
	return nil
}

const (
	flagRetain = 1 << iota
	flagNoLocal
	flagAsPublished
	flagTrusted
)

func flag(on bool, bit byte) byte {
	if on {
		return bit
	}
	return 0
}

// PutSession keeps s in place of what was kept under its client id. Its
// subscriptions, its will and its age are kept apart.
func PutSession(s Session) Op {
	e := newEncoder(len(s.User) + len(s.Cursor))
	e.name(s.ClientID)
	e.text(s.User)
	e.byte(s.Version)
	e.number(uint64(s.Expiry))
	e.text(s.Cursor)
	return Op{Bucket: Sessions, Key: nameKey(s.ClientID), Value: e.b}
}

func decodeSession(key, value []byte) (s Session, err error) {
	id, rest, ok := cutName(key)
	d := newDecoder(value)
	s.ClientID = d.name(id)
	s.User = d.text()
	s.Version = d.upTo(5)
	s.Expiry = uint32(d.number(NeverExpires))
	s.Cursor = d.text()
	return s, d.done(ok && len(rest) == 0)
}

// PutAge keeps how long the session has been without its client, to the
// second. The age of a session that has its client is deleted.
func PutAge(clientID string, age time.Duration) Op {
	e := newEncoder(0)
	e.name(clientID)
	e.number(uint64(max(0, age/time.Second)))
	return Op{Bucket: Ages, Key: nameKey(clientID), Value: e.b}
}

// DeleteAge forgets the age: the client is back.
func DeleteAge(clientID string) Op {
	return Op{Kind: Delete, Bucket: Ages, Key: nameKey(clientID)}
}

func decodeAge(key, value []byte) (clientID string, age time.Duration, err error) {
	id, rest, ok := cutName(key)
	d := newDecoder(value)
	clientID = d.name(id)
	age = time.Duration(d.number(1<<33)) * time.Second
	return clientID, age, d.done(ok && len(rest) == 0)
}

// DeleteSession forgets all that is kept of the session: itself, its age, will,
// subscriptions and identifiers.
func DeleteSession(clientID string) []Op {
	key := nameKey(clientID)
	return []Op{
		{Kind: Delete, Bucket: Sessions, Key: key},
		{Kind: Delete, Bucket: Ages, Key: key},
		{Kind: Delete, Bucket: Wills, Key: key},
		{Kind: DeletePrefix, Bucket: Subscriptions, Key: key},
		{Kind: DeletePrefix, Bucket: Received, Key: key},
		{Kind: DeletePrefix, Bucket: Released, Key: key},
	}
}

package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"sluice/mapping"
	"sluice/sources"
)

const (
	// maxPoints bounds the points of one dictionary.
	maxPoints = 1 << 17
	// pointsPerFrame is how many entries share the fate of a frame.
	pointsPerFrame = 32
)

var errBody = errors.New("the body of a frame makes no sense")

// dictionary numbers points for the batches of one or more segments, from 0.
// It only grows; Spool.mu guards it.
type dictionary struct {
	points []*mapping.Point
	ids    map[*mapping.Point]int64
}

func newDictionary() *dictionary { return &dictionary{ids: map[*mapping.Point]int64{}} }

// id returns the number of p. guess is where it probably is.
func (d *dictionary) id(p *mapping.Point, guess int64) int64 {
	if guess < int64(len(d.points)) && d.points[guess] == p {
		return guess
	}
	if id, ok := d.ids[p]; ok {
		return id
	}
	id := int64(len(d.points))
	d.points = append(d.points, p)
	d.ids[p] = id
	return id
}

// appendDictionary appends frames that hold points[from:] to dst. A string
// that is as in the entry before is written as 0, any other as its length + 1
// and its bytes; so entries of one device cost little more than their names.
func appendDictionary(dst []byte, points []*mapping.Point, from int, salt uint32) []byte {
	for from < len(points) {
		n := min(pointsPerFrame, len(points)-from)
		start := len(dst)
		dst = openFrame(dst, frameDictionary)
		dst = binary.AppendUvarint(dst, uint64(from))
		dst = binary.AppendUvarint(dst, uint64(n))
		prev := &mapping.Point{}
		for _, p := range points[from : from+n] {
			dst = appendPoint(dst, p, prev)
			prev = p
		}
		closeFrame(dst, start, salt)
		from += n
	}
	return dst
}

func appendPoint(dst []byte, p, prev *mapping.Point) []byte {
	for _, s := range [...]struct{ now, before string }{
		{p.Site, prev.Site}, {p.Device, prev.Device}, {p.Name, prev.Name},
		{p.Unit, prev.Unit}, {p.Group, prev.Group}, {p.Topic, prev.Topic},
	} {
		if s.now == s.before {
			dst = append(dst, 0)
			continue
		}
		dst = binary.AppendUvarint(dst, uint64(len(s.now))+1)
		dst = append(dst, s.now...)
	}
	var flags byte
	if p.Counter {
		flags |= 1
	}
	if p.Retain {
		flags |= 2
	}
	dst = append(dst, byte(p.Kind), flags, p.UnitID)
	if equalTags(p.Tags, prev.Tags) {
		return append(dst, 0)
	}
	dst = binary.AppendUvarint(dst, uint64(len(p.Tags))+1)
	for _, t := range p.Tags {
		dst = appendString(appendString(dst, t.Key), t.Value)
	}
	return dst
}

func equalTags(a, b []mapping.Tag) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// decodeDictionary puts the entries of body at their places in points.
func decodeDictionary(body []byte, points []*mapping.Point, in *interner) ([]*mapping.Point, error) {
	d := decoder{b: body}
	from, n := d.uvarint(), d.uvarint()
	if d.bad || from > maxPoints || n > pointsPerFrame || from+n > maxPoints {
		return points, fmt.Errorf("decode dictionary: %w", errBody)
	}
	var read [pointsPerFrame]*mapping.Point
	prev := &mapping.Point{}
	for i := range n {
		read[i] = decodePoint(&d, prev)
		prev = read[i]
	}
	if d.bad || len(d.b) > 0 {
		return points, fmt.Errorf("decode dictionary: %w", errBody)
	}
	for uint64(len(points)) < from+n {
		points = append(points, nil)
	}
	for i := range n {
		points[from+i] = in.intern(read[i])
	}
	return points, nil
}

func decodePoint(d *decoder, prev *mapping.Point) *mapping.Point {
	text := func(before string) string {
		n := d.uvarint()
		if n == 0 {
			return before
		}
		return string(d.bytes(n - 1))
	}
	p := &mapping.Point{
		Site: text(prev.Site), Device: text(prev.Device), Name: text(prev.Name),
		Unit: text(prev.Unit), Group: text(prev.Group), Topic: text(prev.Topic),
	}
	p.Kind = sources.Kind(d.byte())
	flags := d.byte()
	if flags > 3 || p.Kind > sources.KindString {
		d.fail()
	}
	p.Counter, p.Retain = flags&1 != 0, flags&2 != 0
	p.UnitID = d.byte()
	n := d.uvarint()
	if n == 0 {
		p.Tags = prev.Tags
		return p
	}
	if n-1 > uint64(len(d.b)) {
		d.fail()
		return p
	}
	for range n - 1 {
		if d.bad {
			break
		}
		key := string(d.bytes(d.uvarint()))
		p.Tags = append(p.Tags, mapping.Tag{Key: key, Value: string(d.bytes(d.uvarint()))})
	}
	return p
}

// interner gives points of equal content the same pointer, so that readers
// may keep things by pointer whichever segment a record comes from.
type interner struct {
	mu  sync.Mutex
	all map[string]*mapping.Point // by appendPoint against the zero Point
	buf []byte
}

func (in *interner) intern(p *mapping.Point) *mapping.Point {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.buf = appendPoint(in.buf[:0], p, &mapping.Point{})
	if q, ok := in.all[string(in.buf)]; ok {
		return q
	}
	if in.all == nil {
		in.all = map[string]*mapping.Point{}
	}
	in.all[string(in.buf)] = p
	return p
}

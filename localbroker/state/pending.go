package state

import (
	"bytes"
	"strings"
)

// pending are changes that wait in RAM: of each key, and of each prefix, the last
// one only.
type pending struct {
	ops   []Op // Kind dropped: superseded
	at    map[string]int
	bytes int64
}

const dropped Kind = 0xFF

func newPending() *pending { return &pending{at: map[string]int{}} }

func pendingKey(op *Op) string { return string(op.Bucket) + "\x00" + string(op.Key) }

// place names op in at. The place of a prefix does not begin with it.
func (op *Op) place() string {
	if op.Kind == DeletePrefix {
		return "\x00" + pendingKey(op)
	}
	return pendingKey(op)
}

// add takes ops, whose keys and values it copies.
func (p *pending) add(ops []Op) {
	for _, op := range ops {
		op.Key, op.Value = bytes.Clone(op.Key), bytes.Clone(op.Value)
		if op.Kind == DeletePrefix {
			prefix := pendingKey(&op)
			for other := range p.at {
				if strings.HasPrefix(other, prefix) {
					p.drop(other)
				}
			}
		}
		place := op.place()
		p.drop(place)
		p.at[place] = len(p.ops)
		p.ops = append(p.ops, op)
		p.bytes += int64(len(op.Key) + len(op.Value))
	}
	if len(p.ops) > 64 && len(p.ops) > 2*len(p.at) {
		p.compact()
	}
}

func (p *pending) drop(place string) {
	if i, ok := p.at[place]; ok {
		p.bytes -= int64(len(p.ops[i].Key) + len(p.ops[i].Value))
		p.ops[i] = Op{Kind: dropped}
		delete(p.at, place)
	}
}

// compact forgets what was dropped.
func (p *pending) compact() {
	p.ops = p.list()
	for i := range p.ops {
		p.at[p.ops[i].place()] = i
	}
}

// list returns what is left, in order.
func (p *pending) list() []Op {
	var left []Op
	for _, op := range p.ops {
		if op.Kind != dropped {
			left = append(left, op)
		}
	}
	return left
}

// putBytes is how many bytes ops want to keep.
func putBytes(ops []Op) (n int64) {
	for i := range ops {
		if ops[i].Kind == Put {
			n += int64(len(ops[i].Key) + len(ops[i].Value))
		}
	}
	return n
}

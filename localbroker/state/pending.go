package state

import (
	"bytes"
	"strings"
)

// pending are changes that wait in RAM: of each key the last one only.
type pending struct {
	ops   []Op // Kind dropped: superseded
	at    map[string]int
	bytes int64
}

const dropped Kind = 0xFF

func newPending() *pending { return &pending{at: map[string]int{}} }

func pendingKey(op *Op) string { return string(op.Bucket) + "\x00" + string(op.Key) }

// add takes ops, whose keys and values it copies.
func (p *pending) add(ops []Op) {
	for _, op := range ops {
		op.Key, op.Value = bytes.Clone(op.Key), bytes.Clone(op.Value)
		key := pendingKey(&op)
		if op.Kind == DeletePrefix {
			for other := range p.at {
				if strings.HasPrefix(other, key) {
					p.drop(other)
				}
			}
			p.ops = append(p.ops, op)
			p.bytes += int64(len(op.Key))
			continue
		}
		p.drop(key)
		p.at[key] = len(p.ops)
		p.ops = append(p.ops, op)
		p.bytes += int64(len(op.Key) + len(op.Value))
	}
	if len(p.ops) > 64 && len(p.ops) > 2*len(p.at) {
		p.compact()
	}
}

func (p *pending) drop(key string) {
	if i, ok := p.at[key]; ok {
		p.bytes -= int64(len(p.ops[i].Key) + len(p.ops[i].Value))
		p.ops[i] = Op{Kind: dropped}
		delete(p.at, key)
	}
}

// compact forgets what was dropped.
func (p *pending) compact() {
	p.ops = p.list()
	for i := range p.ops {
		if p.ops[i].Kind != DeletePrefix {
			p.at[pendingKey(&p.ops[i])] = i
		}
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

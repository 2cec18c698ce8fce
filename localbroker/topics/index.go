package topics

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Index is who subscribed to what. S names a subscriber. The zero value is
// empty and ready; it is safe for concurrent use and must not be copied.
//
//	root ─ "plant" ─┬─ "+" ── "power"     a node for each level of a filter;
//	                └─ "#"                subscriptions hang where it ends
//
// A match takes time by the levels of the topic and the filters that cover
// it, not by the subscriptions there are.
type Index[S comparable] struct {
	generation atomic.Uint64

	mu    sync.RWMutex
	root  node[S]                       // guarded by mu
	of    map[S]map[string]Subscription // by filter as asked for; guarded by mu
	count int                           // guarded by mu
}

// node is one level of the filters.
type node[S comparable] struct {
	children map[string]*node[S]
	direct   map[S]Subscription
	shared   map[string][]Hit[S] // by group, in the order of subscribing
}

// Hit is a subscriber whose subscriptions cover a topic. Several that overlap
// are merged.
type Hit[S comparable] struct {
	Who               S
	QoS               byte     // the highest [MQTT-3.3.4-2]
	NoLocal           bool     // all of them want no own messages
	RetainAsPublished bool     // one of them wants the flag
	IDs               []uint32 // of all, ascending [MQTT-3.3.4-3] [MQTT-3.3.4-5]; not to be changed
	Group             string   // filter of the shared subscription, as asked for; "" direct
}

// Matched is the audience of a topic.
type Matched[S comparable] struct {
	Direct []Hit[S]   // each gets the message
	Shared [][]Hit[S] // one member of each entry gets it [MQTT-4.8.2-4]; in the order of subscribing
}

// Subscribe enters sub, in the place of who's subscription with the same
// filter if there is one. The filter must be well-formed.
func (x *Index[S]) Subscribe(who S, sub Subscription) (existed bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	mine := x.of[who]
	if mine == nil {
		if x.of == nil {
			x.of = make(map[S]map[string]Subscription)
		}
		mine = make(map[string]Subscription, 1)
		x.of[who] = mine
	}
	_, existed = mine[sub.Filter]
	mine[sub.Filter] = sub
	if !existed {
		x.count++
	}
	inner, group, _ := Unshared(sub.Filter)
	n := &x.root
	for level, rest, more := "", inner, true; more; {
		level, rest, more = strings.Cut(rest, "/")
		child := n.children[level]
		if child == nil {
			child = new(node[S])
			if n.children == nil {
				n.children = make(map[string]*node[S], 1)
			}
			n.children[strings.Clone(level)] = child
		}
		n = child
	}
	n.enter(who, group, sub)
	x.generation.Add(1)
	return existed
}

// enter puts a subscription whose filter ends here.
func (n *node[S]) enter(who S, group string, sub Subscription) {
	if group == "" {
		if n.direct == nil {
			n.direct = make(map[S]Subscription, 1)
		}
		n.direct[who] = sub
		return
	}
	if n.shared == nil {
		n.shared = make(map[string][]Hit[S], 1)
	}
	// A slice that was given out is never changed.
	members := slices.Clone(n.shared[group])
	hit := newHit(who, sub)
	hit.Group = sub.Filter
	if i := member(members, who); i >= 0 {
		members[i] = hit
	} else {
		members = append(members, hit)
	}
	n.shared[group] = members
}

func member[S comparable](members []Hit[S], who S) int {
	return slices.IndexFunc(members, func(h Hit[S]) bool { return h.Who == who })
}

func newHit[S comparable](who S, sub Subscription) Hit[S] {
	h := Hit[S]{Who: who, QoS: sub.QoS, NoLocal: sub.NoLocal, RetainAsPublished: sub.RetainAsPublished}
	if sub.ID != 0 {
		h.IDs = []uint32{sub.ID}
	}
	return h
}

// Unsubscribe takes who's subscription with exactly this filter out.
func (x *Index[S]) Unsubscribe(who S, filter string) (existed bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	mine := x.of[who]
	if _, existed = mine[filter]; !existed {
		return false
	}
	delete(mine, filter)
	if len(mine) == 0 {
		delete(x.of, who)
	}
	x.takeOut(who, filter)
	x.generation.Add(1)
	return true
}

// Remove takes all subscriptions of who out.
func (x *Index[S]) Remove(who S) {
	x.mu.Lock()
	defer x.mu.Unlock()
	mine := x.of[who]
	if len(mine) == 0 {
		return
	}
	delete(x.of, who)
	for filter := range mine {
		x.takeOut(who, filter)
	}
	x.generation.Add(1)
}

// takeOut removes one subscription from the tree, and the nodes that nothing
// needs any more.
func (x *Index[S]) takeOut(who S, filter string) {
	x.count--
	inner, group, _ := Unshared(filter)
	x.root.leave(who, inner, true, group)
}

// leave takes the subscription at rest out below n. more is false at the end
// of the filter.
func (n *node[S]) leave(who S, rest string, more bool, group string) {
	if more {
		level, below, more := strings.Cut(rest, "/")
		child := n.children[level]
		if child == nil {
			return
		}
		child.leave(who, below, more, group)
		if len(child.children) == 0 && len(child.direct) == 0 && len(child.shared) == 0 {
			delete(n.children, level)
		}
		return
	}
	if group == "" {
		delete(n.direct, who)
		return
	}
	members := n.shared[group]
	if i := member(members, who); i >= 0 {
		members = slices.Delete(slices.Clone(members), i, i+1)
		n.shared[group] = members
	}
	if len(members) == 0 {
		delete(n.shared, group)
	}
}

// Of returns the subscriptions of who, by filter.
func (x *Index[S]) Of(who S) []Subscription {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return slices.SortedFunc(maps.Values(x.of[who]), func(a, b Subscription) int { return cmp.Compare(a.Filter, b.Filter) })
}

// Count returns how many subscriptions there are.
func (x *Index[S]) Count() int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.count
}

// Generation returns a number that changes with every change of the index,
// after the change can be seen. Who keeps what Match returned reads it first.
func (x *Index[S]) Generation() uint64 { return x.generation.Load() }

// Match returns who is to get a message with the topic name topic. The result
// is the caller's to keep and not to change. Members of a shared group are
// not merged with direct subscriptions: who has both gets both.
func (x *Index[S]) Match(topic string) Matched[S] {
	x.mu.RLock()
	defer x.mu.RUnlock()
	m := matcher[S]{dollar: Dollar(topic)}
	m.walk(&x.root, topic, true, true)
	for i := range m.out.Direct {
		slices.Sort(m.out.Direct[i].IDs)
	}
	return m.out
}

// matcher gathers the audience of one topic.
type matcher[S comparable] struct {
	out    Matched[S]
	dollar bool
	at     map[S]int // place in out.Direct, once there are many
}

// walk visits the nodes below n that cover rest. more is false behind the last
// level of the topic.
func (m *matcher[S]) walk(n *node[S], rest string, more, first bool) {
	wild := !(first && m.dollar) // [MQTT-4.7.2-1]
	if all := n.children["#"]; all != nil && wild {
		m.add(all) // the parent too [MQTT-4.7.1-2]
	}
	if !more {
		m.add(n)
		return
	}
	level, below, more := strings.Cut(rest, "/")
	if child := n.children[level]; child != nil {
		m.walk(child, below, more, false)
	}
	if one := n.children["+"]; one != nil && wild {
		m.walk(one, below, more, false)
	}
}

// add puts all who subscribed at n.
func (m *matcher[S]) add(n *node[S]) {
	for who, sub := range n.direct {
		if i := m.find(who); i >= 0 {
			merge(&m.out.Direct[i], sub)
			continue
		}
		m.out.Direct = append(m.out.Direct, newHit(who, sub))
		if m.at != nil {
			m.at[who] = len(m.out.Direct) - 1
		}
	}
	for _, members := range n.shared {
		m.out.Shared = append(m.out.Shared, members)
	}
}

// find returns the place of who among the direct hits, or -1. A few are
// searched one after the other.
func (m *matcher[S]) find(who S) int {
	const few = 16
	if m.at == nil && len(m.out.Direct) <= few {
		return member(m.out.Direct, who)
	}
	if m.at == nil {
		m.at = make(map[S]int, 2*few)
		for i := range m.out.Direct {
			m.at[m.out.Direct[i].Who] = i
		}
	}
	if i, ok := m.at[who]; ok {
		return i
	}
	return -1
}

// merge adds a further subscription of the same subscriber.
func merge[S comparable](h *Hit[S], sub Subscription) {
	h.QoS = max(h.QoS, sub.QoS)
	h.NoLocal = h.NoLocal && sub.NoLocal
	h.RetainAsPublished = h.RetainAsPublished || sub.RetainAsPublished
	if sub.ID != 0 {
		h.IDs = append(h.IDs, sub.ID)
	}
}

package localbroker

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/localbroker/spool"
)

// rule is what the standard says of more than one packet, as a play of
// clients. Each line is a client, what it does, and how:
//
//	A connect keep|new|clean [fresh|resumed]   CONNECT, and the CONNACK; keep and new: a session of 1000 s.
//	                                           A client A' has the identifier of A
//	A sub FILTER OPTIONS [CODE]                SUBSCRIBE, and the SUBACK
//	A unsub FILTER [CODE]                      UNSUBSCRIBE, and the UNSUBACK
//	A pub TOPIC PAYLOAD QOS [r]                PUBLISH, to its end
//	A gets TOPIC PAYLOAD QOS [rd]              a PUBLISH that comes, retained or a repeat; acknowledged to its end
//	A holds TOPIC PAYLOAD QOS [rd] $NAME       the same, not acknowledged; its identifier is $NAME
//	A quiet                                    nothing comes
//	A done                                     what came at QoS 2 is taken to its end
//	A cut, A bye                               the connection goes; with a DISCONNECT
//	A closed [REASON]                          the broker closes it; with a DISCONNECT in MQTT 5
//	A open                                     a connection and no word
//	A > FIRST FIELDS, A < FIRST FIELDS         bytes: name: is for the reader, "text" has its length before it,
//	                                           'text' has not, none are no properties (00 in MQTT 5),
//	                                           .. is any byte, * is the rest
//	wait TIME
//	restart                                    of the broker; all connections are gone
type rule struct {
	name     string
	versions string // 4 is MQTT 3.1.1
	play     string
}

// stage is a broker and its clients in a play.
type stage struct {
	t       *testing.T
	b       *Broker
	version byte
	prefix  string // of topics, in the place of "plant/"
	open    func(version byte) *peer
	settle  func(holds func() bool) // waits until it holds
	restart func()                  // nil in fake time
	clients map[string]*peer
	ids     map[string][]byte
	rels    map[string]bool // PUBRELs, by client and identifier, that next answers
	line    string
}

// next reads a packet. PUBRELs of messages that are taken to their end are
// answered on the way.
func (s *stage) next(w *peer) (first byte, body []byte) {
	s.t.Helper()
	for {
		first, body, err := w.next()
		s.check(err == nil, "%v", err)
		if key := fmt.Sprintf("%p % x", w, body); first == 0x62 && s.rels[key] {
			delete(s.rels, key)
			w.send(frame(0x70, body))
			continue
		}
		return first, body
	}
}

func conformanceConfig() Config {
	cfg := testConfig()
	cfg.Publish = []string{"plant/#", "lan/#"}
	cfg.Limits.TopicAliases, cfg.Limits.Inflight = 3, 5
	return cfg
}

// perform runs a play for each of its versions: with sessions in memory and
// time that does not pass by itself, unless only stored sessions keep what it
// asks for; and with stored sessions, past the log or through it (both with
// SLUICE_TORTURE), unless time has to pass.
func perform(t *testing.T, rules []rule, storedOnly bool) {
	t.Helper()
	for _, r := range rules {
		for _, v := range r.versions {
			version := byte(v - '0')
			if !storedOnly {
				t.Run(fmt.Sprintf("%s/%c", r.name, v), func(t *testing.T) {
					inBubble(t, conformanceConfig(), func(b *Broker, pipe func(byte) *peer) {
						s := &stage{b: b, t: t, version: version, prefix: "plant/", open: pipe, settle: func(func() bool) { synctest.Wait() }}
						s.run(r.play)
					})
				})
			}
			for _, prefix := range []string{"plant/", "lan/"} {
				if strings.Contains(r.play, "wait ") || len(r.versions) > 1 && !torture() && (version == 5) != (prefix == "lan/") {
					continue
				}
				t.Run(fmt.Sprintf("%s/%c/stored/%s", r.name, v, prefix), func(t *testing.T) {
					performStored(t, version, prefix, r.play)
				})
			}
		}
	}
}

// performStored runs a play with stored sessions over TCP.
func performStored(t *testing.T, version byte, prefix, play string) {
	cfg, opts := conformanceConfig(), Options{Data: t.TempDir()}
	cfg.Storage.Level, cfg.Storage.SyncInterval, cfg.Storage.MaxSize = spool.Buffered, time.Minute, 1<<20
	b := start(t, cfg, opts)
	s := &stage{b: b.Broker, t: t, version: version, prefix: prefix, settle: func(holds func() bool) { eventually(t, holds) }}
	s.open = func(version byte) *peer { return dial(t, b.address, version) }
	s.restart = func() {
		b.stop()
		b = start(t, cfg, opts)
		s.b = b.Broker
	}
	s.run(play)
}

func (s *stage) run(play string) {
	s.clients, s.ids, s.rels = map[string]*peer{}, map[string][]byte{}, map[string]bool{}
	for line := range strings.Lines(play) {
		words := strings.Fields(strings.ReplaceAll(line, "plant/", s.prefix))
		if len(words) == 0 {
			continue
		}
		s.line = strings.TrimSpace(line)
		if words[0] == "restart" {
			for _, w := range s.clients {
				_ = w.conn.Close() // the broker would wait for them
			}
			s.restart()
			continue
		}
		if words[0] == "wait" {
			d, err := time.ParseDuration(words[1])
			s.check(err == nil, "%v", err)
			time.Sleep(d)
			synctest.Wait()
			continue
		}
		s.act(words[0], words[1], append(words[2:], "", "", "", ""))
	}
}

// check ends the test unless ok.
func (s *stage) check(ok bool, format string, args ...any) {
	s.t.Helper()
	if !ok {
		s.t.Fatalf("%s: %s", s.line, fmt.Sprintf(format, args...))
	}
}

func (s *stage) act(name, verb string, args []string) {
	s.t.Helper()
	w := s.clients[name]
	switch verb {
	case "open":
		s.clients[name] = s.open(s.version)
	case "connect":
		s.connect(name, args[0], args[1])
	case "sub":
		s.answered(w, 0x82, 0x90, args[0], []byte{s.number(args[1])}, args[2], s.number(args[1])&3)
	case "unsub":
		s.answered(w, 0xa2, 0xb0, args[0], nil, args[1], 0)
	case "pub":
		s.publish(w, args)
	case "gets", "holds":
		s.receive(w, verb == "gets", args)
	case "quiet":
		s.settle(func() bool { return true })
		w.send([]byte{0xc0, 0})
		first, body := s.next(w)
		s.check(first == 0xd0, "got %#02x % x", first, body)
	case "done":
		s.finish(w)
	case "cut", "bye":
		s.leave(name, w, verb == "bye")
	case "closed":
		began := time.Now()
		last := w.expectClosed()
		s.check(s.restart != nil || time.Since(began) < time.Second, "after %v", time.Since(began)) // fake time
		want := args[0]
		if s.version < 5 {
			want = ""
		}
		s.check(want == "" || bytes.Equal(last, []byte{0xe0, s.number("0x" + want)}), "last packet % x", last)
	case ">":
		packet := s.bytes(args)
		_, _ = w.conn.Write(frame(packet[0], packet[1:])) // the broker may have closed it already
	case "<":
		s.expect(w, args)
	default:
		s.check(false, "no such thing")
	}
}

func (s *stage) number(text string) byte {
	s.t.Helper()
	n, err := strconv.ParseUint(text, 0, 8)
	s.check(err == nil, "%v", err)
	return byte(n)
}

func (s *stage) connect(name, session, present string) {
	s.t.Helper()
	w := s.open(s.version)
	s.clients[name] = w
	flags, properties := byte(0x02), []byte(nil)
	if session == "keep" {
		flags = 0
	}
	if session != "clean" {
		properties = []byte{0x11, 0, 0, 3, 0xe8}
	}
	w.send(w.connectFrame(clientID(name), flags, 60, properties))
	first, body := s.next(w)
	s.check(first == 0x20 && body[1] == 0, "got %#02x % x", first, body)
	s.check(present == "" || (present == "resumed") == (body[0] == 1), "connack % x", body)
	s.settle(func() bool { return s.connected(name) })
}

func clientID(name string) string { return strings.TrimRight(name, "'") }

// answered sends a SUBSCRIBE or UNSUBSCRIBE and checks the code that comes.
func (s *stage) answered(w *peer, ask, answer byte, filter string, options []byte, code string, want byte) {
	s.t.Helper()
	if code != "" {
		want = s.number("0x" + code)
	}
	w.send(frame(ask, []byte{0x12, 0x34}, w.props(), text(filter), options))
	first, body := s.next(w)
	s.check(first == answer && bytes.Equal(body[:2], []byte{0x12, 0x34}), "got %#02x % x", first, body)
	if answer == 0x90 || s.version == 5 {
		s.check(body[len(body)-1] == want, "code %#x, want %#x", body[len(body)-1], want)
	}
}

func (s *stage) publish(w *peer, args []string) {
	s.t.Helper()
	qos := s.number(args[2])
	w.publish(args[0], args[1], qos, 0x0101, args[3] == "r")
	expect := func(kind byte) {
		s.t.Helper()
		first, body := s.next(w)
		s.check(first == kind && len(body) >= 2 && body[0] == 1 && body[1] == 1, "got %#02x % x", first, body)
	}
	switch qos {
	case 1:
		expect(0x40)
	case 2:
		expect(0x50)
		w.send([]byte{0x62, 2, 1, 1})
		expect(0x70)
	}
}

// receive reads a PUBLISH, and acknowledges it to its end if ack.
func (s *stage) receive(w *peer, ack bool, args []string) {
	s.t.Helper()
	flags, name := args[3], args[4]
	if strings.HasPrefix(flags, "$") {
		flags, name = "", flags
	}
	first, body := s.next(w)
	s.check(first>>4 == 3, "got %#02x % x", first, body)
	got := w.parse(first, body)
	want := publication{topic: args[0], payload: args[1], qos: s.number(args[2]), retain: strings.Contains(flags, "r"), dup: strings.Contains(flags, "d")}
	s.check(got.topic == want.topic && got.payload == want.payload && got.qos == want.qos && got.retain == want.retain && got.dup == want.dup, "got %+v", got)
	s.check((got.qos == 0) == (got.id == 0), "identifier %d", got.id) // [MQTT-2.2.1-2] [MQTT-2.2.1-4]
	id := binary.BigEndian.AppendUint16(nil, got.id)
	if ack && got.qos > 0 {
		w.send(frame(0x30+got.qos<<4, id)) // PUBACK, PUBREC
		if got.qos == 2 {
			s.rels[fmt.Sprintf("%p % x", w, id)] = true
		}
	}
	if name != "" {
		known := s.ids[name]
		s.check(known == nil || bytes.Equal(known, id), "identifier % x, was % x", id, known)
		s.ids[name] = id
	}
}

func (s *stage) leave(name string, w *peer, politely bool) {
	s.t.Helper()
	if politely {
		s.finish(w)
		w.send([]byte{0xe0, 0})
		w.expectClosed()
	}
	_ = w.conn.Close()
	s.settle(func() bool { return !s.connected(name) })
}

// finish takes what a client has got at QoS 2 to its end.
func (s *stage) finish(w *peer) {
	s.t.Helper()
	for key := range s.rels {
		if strings.HasPrefix(key, fmt.Sprintf("%p ", w)) {
			first, body, err := w.next()
			s.check(err == nil && first == 0x62, "got %#02x % x, error %v", first, body, err)
			w.send(frame(0x70, body))
			delete(s.rels, key)
		}
	}
	w.ping() // the last PUBCOMP has been worked on
}

// connected reports whether the session of a client has a connection.
func (s *stage) connected(name string) bool {
	s.b.mu.Lock()
	session := s.b.sessions[clientID(name)]
	s.b.mu.Unlock()
	return session != nil && session.connection() != nil
}

// bytes makes the bytes of fields, without those that end a pattern.
func (s *stage) bytes(words []string) (out []byte) {
	s.t.Helper()
	for _, word := range words {
		switch {
		case word == "" || strings.HasSuffix(word, ":") || word == "none" && s.version < 5:
		case word == "none":
			out = append(out, 0)
		case word[0] == '$':
			out = append(out, s.ids[word]...)
		case word[0] == '"':
			out = append(out, text(strings.Trim(word, `"`))...)
		case word[0] == '\'':
			out = append(out, strings.Trim(word, `'`)...)
		default:
			b, err := hex.DecodeString(word)
			s.check(err == nil, "%q: %v", word, err)
			out = append(out, b...)
		}
	}
	return out
}

// expect reads a packet and compares it with a pattern.
func (s *stage) expect(w *peer, pattern []string) {
	s.t.Helper()
	first, body := s.next(w)
	got := append([]byte{first}, body...)
	at := 0
	for _, word := range pattern {
		switch {
		case word == "*":
			return
		case word == "..":
			at++
		case word != "" && word[0] == '$' && s.ids[word] == nil:
			s.check(at+2 <= len(got), "got % x", got)
			s.ids[word] = got[at : at+2]
			at += 2
		default:
			want := s.bytes([]string{word})
			s.check(at+len(want) <= len(got) && bytes.Equal(got[at:at+len(want)], want), "got % x", got)
			at += len(want)
		}
	}
	s.check(at == len(got), "got % x", got)
}

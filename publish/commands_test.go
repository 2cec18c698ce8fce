package publish

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"sluice/mapping"
)

// fakeCommander gives commands over the fake broker.
type fakeCommander struct {
	mu      sync.Mutex
	code    byte // of SUBACK; 0x80 refuses
	silent  bool // no SUBACK
	hangUp  bool // ends the connection over SUBSCRIBE
	stored  string
	line    *served
	asked   []string // the filters of each SUBSCRIBE, with its connection
	answers []string // "connection topic payload"
	acks    int
}

func (f *fakeCommander) subscribe(s *served, p *packets.SubscribePacket) bool {
	f.mu.Lock()
	f.line = s
	f.asked = append(f.asked, fmt.Sprint(s.n, p.Topics, p.Qoss))
	code, silent, hangUp, stored := f.code, f.silent, f.hangUp, f.stored
	f.mu.Unlock()
	if hangUp || silent {
		return silent
	}
	a := packets.NewControlPacket(packets.Suback).(*packets.SubackPacket)
	a.MessageID = p.MessageID
	for range p.Topics {
		a.ReturnCodes = append(a.ReturnCodes, code)
	}
	if a.Write(s.c) != nil {
		return false
	}
	return stored == "" || f.send(s, "plant/plc/a/set", stored, 1, true, 3)
}

func (f *fakeCommander) send(s *served, topic, payload string, qos byte, retain bool, id uint16) bool {
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.TopicName, p.Payload, p.Qos, p.Retain, p.MessageID = topic, []byte(payload), qos, retain, id
	return p.Write(s.c) == nil
}

// say gives a command on the latest connection.
func (f *fakeCommander) say(topic, payload string, qos byte, id uint16) {
	f.mu.Lock()
	line := f.line
	f.mu.Unlock()
	f.send(line, topic, payload, qos, false, id)
}

func (f *fakeCommander) answered(s *served, p *packets.PublishPacket) bool {
	f.mu.Lock()
	f.answers = append(f.answers, fmt.Sprintf("%d %s %s %d %t", s.n, p.TopicName, p.Payload, p.Qos, p.Retain))
	f.mu.Unlock()
	return s.ack(p)
}

func (f *fakeCommander) taken(p packets.ControlPacket) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := p.(*packets.PubackPacket); ok {
		f.acks++
	}
	return true
}

func (f *fakeCommander) got() (answers, asked []string, acks int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.answers), slices.Clone(f.asked), f.acks
}

// newCommandRig is a rig whose upstream notes commands, and answers each at once.
func newCommandRig(t *testing.T) (*rig, *fakeCommander, func() []string) {
	r, f := newRig(t), &fakeCommander{code: 1}
	r.broker.commander = f
	var mu sync.Mutex
	var heard []string
	r.inbox = &Inbox{Filters: []string{"plant/+/+/set"}, Receive: func(topic string, payload []byte, retained bool) {
		mu.Lock()
		heard = append(heard, fmt.Sprintf("%s %s %t", topic, payload, retained))
		mu.Unlock()
		r.up.Answer(mapping.Message{Topic: strings.TrimSuffix(topic, "/set") + "/result", Payload: slices.Clone(payload), QoS: 1})
	}}
	return r, f, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(heard)
	}
}

// TestCommandsAreHeardAndAnswered among data: acknowledged, with the retained flag
// as it came, each answered once at QoS 1.
func TestCommandsAreHeardAndAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f, heard := newCommandRig(t)
		f.stored = "old"
		r.broker.faults = func(int, string) fault { return fault{rtt: 50 * time.Millisecond} }
		r.log.add(100)
		r.start()
		r.eventually(time.Minute, "not subscribed", func() bool { return r.up.Stats().Commands.Subscribed })
		for i := range 20 {
			r.log.add(50)
			f.say("plant/plc/a/set", fmt.Sprint("c", i), 1, uint16(i+10))
			time.Sleep(20 * time.Millisecond)
		}
		r.drained(time.Minute)
		time.Sleep(time.Second)
		got := heard()
		answers, asked, acks := f.got()
		if len(got) != 21 || got[0] != "plant/plc/a/set old true" || got[20] != "plant/plc/a/set c19 false" || acks != 21 {
			t.Errorf("%d heard, %d acknowledged: %q", len(got), acks, got)
		}
		if len(answers) != 21 || answers[20] != "1 plant/plc/a/result c19 1 false" {
			t.Errorf("answers: %q", answers)
		}
		if len(asked) != 1 || asked[0] != "1 [plant/+/+/set] [1]" {
			t.Errorf("asked for %q", asked)
		}
		if s := r.up.Stats().Commands; s.Received != 21 || s.Waiting != 0 || s.Trouble != "" {
			t.Errorf("%+v", s)
		}
		r.stop()
		r.judge(0)
	})
}

// TestAnswersOutliveABreak: an answer that is given while the connection is away
// goes out over the next one, and the newest are given up beyond a bound.
func TestAnswersOutliveABreak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f, _ := newCommandRig(t)
		r.broker.faults = func(n int, _ string) fault {
			if n == 1 {
				return fault{cutAfterIdle: 10 * time.Second}
			}
			return fault{}
		}
		r.start()
		r.eventually(time.Minute, "not broken", func() bool { return r.up.Stats().State == StateWaiting })
		for i := range mostAnswers + 5 {
			took := r.up.Answer(mapping.Message{Topic: "plant/plc/a/result", Payload: fmt.Append(nil, i), QoS: 1})
			if took != (i < mostAnswers) {
				t.Errorf("answer %d taken: %t", i, took)
			}
		}
		if s := r.up.Stats().Commands; s.Waiting != mostAnswers || s.Unanswered != 5 {
			t.Errorf("%+v", s)
		}
		r.eventually(time.Minute, "answers wait", func() bool { return r.up.Stats().Commands.Waiting == 0 })
		r.stop()
		answers, _, _ := f.got()
		if len(answers) != mostAnswers || answers[0] != "2 plant/plc/a/result 0 1 false" || answers[mostAnswers-1] != "2 plant/plc/a/result 255 1 false" {
			t.Errorf("%d answers, %q", len(answers), answers[:min(3, len(answers))])
		}
	})
}

// TestCommandsNeverHoldUpData: whatever a server says to SUBSCRIBE, data flows, and
// the status tells what is wrong.
func TestCommandsNeverHoldUpData(t *testing.T) {
	for name, c := range map[string]struct {
		set  func(*fakeCommander)
		want string
	}{
		"refused":   {func(f *fakeCommander) { f.code = 0x80 }, "refuses to subscribe to plant/+/+/set: give this client the right"},
		"no answer": {func(f *fakeCommander) { f.silent = true }, "does not answer SUBSCRIBE to plant/+/+/set"},
		"hangs up":  {func(f *fakeCommander) { f.hangUp = true }, "ends the connection when it is asked for plant/+/+/set: may this client"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, f, _ := newCommandRig(t)
				c.set(f)
				r.start()
				for range 300 {
					r.log.add(5)
					time.Sleep(time.Second)
				}
				r.drained(5 * time.Second)
				s := r.up.Stats()
				if s.Commands.Subscribed || !strings.Contains(s.Commands.Trouble, c.want) || s.State != StateConnected {
					t.Errorf("%s, %+v", s.State, s.Commands)
				}
				if _, asked, _ := f.got(); len(asked) > 2 {
					t.Errorf("asked for %q", asked)
				}
				f.mu.Lock()
				f.code, f.hangUp = 1, false // the right is given
				f.mu.Unlock()
				time.Sleep(later)
				if s := r.up.Stats(); name == "hangs up" && (!s.Commands.Subscribed || s.Commands.Trouble != "") {
					t.Errorf("with the right: %+v", s.Commands)
				}
				r.stop()
				r.judge(20)
			})
		})
	}
}

// TestOneHangUpIsAnAccident: a server that hangs up once while it is asked for commands is
// asked at once by the next connection, and nothing is said, as often as that happens.
func TestOneHangUpIsAnAccident(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f, _ := newCommandRig(t)
		hangUp := func(yes bool) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.hangUp = yes
		}
		r.start()
		for n := range 3 {
			r.eventually(2*time.Minute, "not subscribed", func() bool { return r.up.Stats().Commands.Subscribed })
			hangUp(true)
			r.broker.cut()
			r.eventually(2*time.Minute, "not asked", func() bool { _, asked, _ := f.got(); return len(asked) == 2*n+2 })
			time.Sleep(10 * time.Millisecond)
			hangUp(false)
			if s := r.up.Stats().Commands; s.Subscribed || s.Trouble != "" {
				t.Errorf("hang-up %d: %+v", n, s)
			}
		}
		r.stop()
	})
}

// TestAnswersGoOutAtTheEnd: what was answered before the end is sent before the
// last words.
func TestAnswersGoOutAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f, _ := newCommandRig(t)
		r.broker.faults = func(int, string) fault { return fault{rtt: 100 * time.Millisecond} }
		r.start()
		r.eventually(time.Minute, "not subscribed", func() bool { return r.up.Stats().Commands.Subscribed })
		for i := range 50 {
			r.up.Answer(mapping.Message{Topic: "plant/plc/a/result", Payload: fmt.Append(nil, i), QoS: 1})
		}
		r.stop()
		if answers, _, _ := f.got(); len(answers) != 50 || r.broker.goodbyes() != 1 {
			t.Errorf("%d answers, %d DISCONNECTs", len(answers), r.broker.goodbyes())
		}
	})
}

// TestLanMessagesAreNoCommands: a message of a LAN client on a command topic does
// not go out, as the server would send it back as a command.
func TestLanMessagesAreNoCommands(t *testing.T) {
	p, err := NewPlain(plainConfig(nil), PlainOptions{Site: "plant", Withhold: func(topic string) bool { return strings.HasSuffix(topic, "/set") }})
	if err != nil {
		t.Fatal(err)
	}
	var recs []mapping.Record
	for _, topic := range []string{"plant/plc/a/set", "plant/lan/a"} {
		recs = append(recs, mapping.Record{Seq: 1, Scan: 1, Message: &mapping.Message{Topic: topic, Payload: []byte("1")}})
	}
	made, err := p.Encode(recs, false)
	if got := lines(t, made, err); got != "plant/lan/a 1 1 false\n" {
		t.Errorf("%s", got)
	}
}

package publish

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/mapping"
)

// Commands says that an upstream takes commands, and where: docs/commands.md.
type Commands struct {
	// Topic is the template of the topics on which commands come; empty means
	// the topic of the point (with json-device: of the device) with /set behind
	// it. It may end in /#, for servers that put something behind.
	Topic string `yaml:"topic"`
	// Result is the template of those on which they are answered; empty means
	// Topic with /result in place of /set or /#, or behind it.
	Result string `yaml:"result"`
	// Untimed takes commands that say neither sent nor expires, although they
	// may have waited on the way.
	Untimed bool `yaml:"untimed"`
}

// The ends of the command topics and of those of the answers.
const (
	setSuffix    = "/set"
	resultSuffix = "/result"
	anySuffix    = "/#"
)

// CommandTemplates returns the templates of the topics on which a command comes
// and is answered, for a point whose data has the template data. rest says that
// more levels may follow the first one. c has Commands.
func (c *Config) CommandTemplates(data string) (set, result string, rest bool) {
	set, result = c.Commands.Topic, c.Commands.Result
	if set == "" {
		set = data + setSuffix
	}
	set, rest = strings.CutSuffix(set, anySuffix)
	if result == "" {
		result = strings.TrimSuffix(set, setSuffix) + resultSuffix
	}
	return set, result, rest
}

// validateCommands checks that nobody can slip in a command, and no old one.
func (c *Config) validateCommands(p *problems) {
	if s := c.Sparkplug; c.Payload == payloadSparkplug && s != nil {
		switch {
		case s.Writes:
			c.validateWay(p, "sparkplug.writes", "write to devices")
		case s.Reboot:
			c.validateWay(p, "sparkplug.reboot", "have the program started anew")
		case s.ScanRate != nil:
			c.validateWay(p, "sparkplug.scan_rate", "set how often is polled")
		}
	}
	if c.Commands == nil {
		return
	}
	if c.Payload == payloadSparkplug {
		p.add("commands", "hosts command an edge node of Sparkplug by DCMD", "remove commands; sparkplug: { writes: true } allows it")
		return
	}
	if !c.Clean {
		p.add("clean", "a server that keeps the session delivers old commands after a break", "remove clean: false")
	}
	set, result, _ := c.CommandTemplates(mapping.DefaultTopic)
	checkTopic(p, "commands.topic", set)
	if c.Commands.Result != "" { // or what is wrong is wrong with topic
		checkTopic(p, "commands.result", result)
	}
	if set == result {
		p.add("commands.result", "commands and answers have the same topic", "remove result")
	}
	c.validateWay(p, "commands", "write to devices")
}

// validateWay warns where anybody could give commands; field allows them.
func (c *Config) validateWay(p *problems, field, harm string) {
	if list, err := c.servers(); err == nil && slices.ContainsFunc(list, func(s server) bool { return !s.tls() }) {
		p.warn(field, "commands come without TLS: whoever is on the way can "+harm, "use mqtts:// or add tls: {}")
	}
	if c.User == "" && (c.TLS == nil || c.TLS.Cert == "") {
		p.warn(field, "commands come over an upstream without a login: who may give them?", "add user and password_file, or tls.cert and tls.key")
	}
}

// Inbox is what an upstream hears besides its session: commands.
type Inbox struct {
	// Filters are subscribed to at QoS 1 after each connect.
	Filters []string
	// Receive takes a message of the server; payload is valid until it returns.
	// It holds up the acknowledgements, so it must not wait.
	Receive func(topic string, payload []byte, retained bool)
}

// Listening is the state of an Inbox.
type Listening struct {
	Subscribed bool   `json:"subscribed"`        // the server has granted every filter
	Trouble    string `json:"trouble,omitempty"` // why nothing can come
	Received   uint64 `json:"received"`
	Waiting    int    `json:"waiting"`    // answers that wait for the connection
	Unanswered uint64 `json:"unanswered"` // answers that were given up, as too many waited
}

// mostAnswers wait to be sent: the newest ones are given up. They outlive a
// break of the connection, not the process.
const mostAnswers = 256

// later is how long into a connection SUBSCRIBE waits after the server has hung
// up on more than one: some do that to a client without the right, and data must
// flow.
const later = 10 * time.Minute

// inbox is an Inbox at work, over all connections.
type inbox struct {
	Inbox
	mu      sync.Mutex // guards what follows
	state   Listening
	answers []mapping.Message
	hungUp  int // connections in a row that the server ended over SUBSCRIBE
}

// hear takes a message. It is called by the reader.
func (in *inbox) hear(topic string, payload []byte, retained bool) {
	in.mu.Lock()
	in.state.Received++
	in.mu.Unlock()
	in.Receive(topic, payload, retained)
}

// listening returns the state; nil without an Inbox.
func (in *inbox) listening() *Listening {
	if in == nil {
		return nil
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	s := in.state
	s.Waiting = len(in.answers)
	return &s
}

// Answer sends m over the connection that is up, or the next one. It does not
// wait, and keeps m. It returns false if too many answers wait already.
func (u *Upstream) Answer(m mapping.Message) bool {
	in := u.inbox
	in.mu.Lock()
	full := len(in.answers) >= mostAnswers
	if full {
		in.state.Unanswered++
	} else {
		in.answers = append(in.answers, m)
	}
	in.mu.Unlock()
	signal(u.news)
	return !full
}

// answer sends the answers that wait. It returns false when the connection or ctx
// ended; the ones that were not sent stay. One goroutine at a time calls it.
func (u *Upstream) answer(ctx context.Context, c *conn) bool {
	in := u.inbox
	for in != nil {
		in.mu.Lock()
		if len(in.answers) == 0 {
			in.mu.Unlock()
			break
		}
		m := in.answers[0]
		in.mu.Unlock()
		if err := checkMessage(&m, u.maxMessage); err != nil {
			u.unsendable(err)
		} else if !c.send(ctx, laneStatus, &m, span{}) {
			return false
		}
		in.mu.Lock()
		in.answers = slices.Delete(in.answers, 0, 1)
		in.mu.Unlock()
	}
	return true
}

// subscribe asks for commands on c and notes what the server says, until c or ctx
// ends. Data does not wait for it.
func (u *Upstream) subscribe(ctx context.Context, c *conn) {
	in := u.inbox
	if in == nil {
		return
	}
	in.mu.Lock()
	in.state.Subscribed = false
	wait := time.Duration(0)
	if in.hungUp > 1 {
		wait = later
	}
	in.mu.Unlock()
	late := time.NewTimer(wait)
	defer late.Stop()
	select {
	case <-late.C:
	case <-c.done:
		return
	case <-ctx.Done():
		return
	}
	c.subscribe(in.Filters)
	late.Reset(u.cfg.ConnectTimeout)
	for {
		select {
		case codes := <-c.suback:
			u.granted(codes)
			return
		case <-late.C:
			u.trouble(fmt.Sprintf("the server does not answer SUBSCRIBE to %s", strings.Join(in.Filters, " ")))
		case <-c.done:
			if c.failure != nil && c.failure.byPeer {
				u.hungUpOn()
			}
			return
		case <-ctx.Done():
			return
		}
	}
}

// granted notes the return codes of SUBACK, one for each filter.
func (u *Upstream) granted(codes []byte) {
	u.inbox.mu.Lock()
	u.inbox.hungUp = 0
	u.inbox.mu.Unlock()
	var refused []string
	for i, filter := range u.inbox.Filters {
		if i >= len(codes) || codes[i] > 2 {
			refused = append(refused, filter)
		}
	}
	if len(refused) > 0 {
		u.trouble(fmt.Sprintf("the server refuses to subscribe to %s: give this client the right to read there", strings.Join(refused, " ")))
		return
	}
	u.inbox.mu.Lock()
	u.inbox.state.Subscribed, u.inbox.state.Trouble = true, ""
	u.inbox.mu.Unlock()
}

// hungUpOn notes that the server ended the connection before it answered
// SUBSCRIBE; once may be an accident.
func (u *Upstream) hungUpOn() {
	u.inbox.mu.Lock()
	u.inbox.hungUp++
	often := u.inbox.hungUp > 1
	u.inbox.mu.Unlock()
	if often {
		u.trouble(fmt.Sprintf("the server ends the connection when it is asked for %s: may this client subscribe there? "+
			"Each connection asks %v after it begins, so that data flows", strings.Join(u.inbox.Filters, " "), later))
	}
}

// trouble notes why no commands can come, and logs what is new.
func (u *Upstream) trouble(text string) {
	u.inbox.mu.Lock()
	known := u.inbox.state.Trouble == text
	u.inbox.state.Trouble = text
	u.inbox.mu.Unlock()
	if !known {
		u.logger.Warn("no commands can come over the upstream", "cause", text)
	}
}

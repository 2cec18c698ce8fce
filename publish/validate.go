package publish

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/configs"
	"sluice/mapping"
)

// problems collects the field errors of one Validate.
type problems []configs.FieldError

func (p *problems) add(field, message, fix string) {
	*p = append(*p, configs.FieldError{Field: field, Message: message, Fix: fix})
}

func (p *problems) warn(field, message, fix string) {
	*p = append(*p, configs.FieldError{Field: field, Message: message, Fix: fix, Warning: true})
}

// oneOf demands that value is one of words.
func (p *problems) oneOf(field, value string, words ...string) {
	if !slices.Contains(words, value) {
		p.add(field, fmt.Sprintf("%s is %q", field, value), "use "+strings.TrimPrefix(strings.Join(words, ", "), ", "))
	}
}

// within demands low ≤ value ≤ high.
func (p *problems) within(field string, value, low, high time.Duration) {
	if value < low || value > high {
		p.add(field, fmt.Sprintf("%s is %v", field, value), fmt.Sprintf("use %v to %v", low, high))
	}
}

func (p *problems) sized(field string, value, low, high configs.Size) {
	if value < low || value > high {
		p.add(field, fmt.Sprintf("%s is %v", field, value), fmt.Sprintf("use %v to %v", low, high))
	}
}

func (p *problems) between(field string, value, low, high int) {
	if value < low || value > high {
		p.add(field, fmt.Sprintf("%s is %d", field, value), fmt.Sprintf("use %d to %d", low, high))
	}
}

// Validate returns every problem of c that shows without connecting, those of
// the files it names included.
func (c *Config) Validate() []configs.FieldError {
	var p problems
	if c.Name == "" || len(c.Name) > 64 || strings.Trim(c.Name, "abcdefghijklmnopqrstuvwxyz0123456789_-") != "" {
		p.add("name", fmt.Sprintf("name %q is not usable", c.Name), "use up to 64 lower-case letters, digits, - and _")
	}
	c.validateServers(&p)
	c.validateCredentials(&p)
	c.validateData(&p)
	c.validateTimes(&p)
	c.validateStatus(&p)
	return p
}

func (c *Config) validateServers(p *problems) {
	if c.Host == "" && len(c.Servers) == 0 {
		p.add("", "the upstream has no server", "add host: broker.example or servers: [mqtts://broker.example]")
	}
	if c.Host != "" && len(c.Servers) > 0 {
		p.add("host", "host and servers are both given", "move the host into servers")
	}
	if c.Host == "" && c.Port != 0 && len(c.Servers) > 0 {
		p.add("port", "port without host", "write the port into the entries of servers, as in mqtts://host:8883")
	}
	if strings.Contains(c.Host, "://") || strings.Contains(c.Host, "/") {
		fix := "mqtts://host:8883"
		if s, err := parseServer(c.Host, c.TLS != nil); err == nil {
			fix = s.String()
		}
		p.add("host", "host is more than a host name", "write servers: ["+fix+"] in its place")
		return
	}
	if name, port, found := strings.Cut(c.Host, ":"); found && !strings.Contains(port, ":") {
		p.add("host", "the port stands with the host", "write host: "+name+" and port: "+port)
		return
	}
	c.validateHost(p)
	secure, plain := 0, 0
	for i, text := range c.Servers {
		s, err := parseServer(text, c.TLS != nil)
		if err != nil {
			problem := err.(*serverProblem)
			p.add(fmt.Sprintf("servers[%d]", i), problem.message, problem.fix)
		} else if s.tls() {
			secure++
		} else {
			plain++
		}
	}
	if c.TLS != nil && c.Host == "" && secure == 0 && plain > 0 {
		p.add("tls", "tls is configured, but no server of the list uses it", "write mqtts:// or wss:// instead of mqtt:// or ws://")
	}
	credentials := c.User != "" || c.PasswordFile != "" || c.PasswordEnv != ""
	if credentials && (plain > 0 || c.Host != "" && c.TLS == nil) {
		p.warn("user", "user and password travel unencrypted", "use mqtts:// or add tls: {}")
	}
}

// validateHost checks host and port, and whether the port is one where TLS is
// usual or not.
func (c *Config) validateHost(p *problems) {
	switch {
	case c.Host == "":
	case c.Port < 0 || c.Port > 65535:
		p.add("port", fmt.Sprintf("port %d is not between 1 and 65535", c.Port), "the usual ports are 1883, and with TLS 8883")
	case c.TLS == nil && (c.Port == 8883 || c.Port == 443):
		p.warn("port", fmt.Sprintf("port %d is usually for TLS, and tls is not set", c.Port), "add tls: {}")
	case c.TLS != nil && c.Port == 1883:
		p.warn("port", "port 1883 is usually without TLS, and tls is set", "use port 8883, or remove tls")
	default:
		if _, err := parseServer(c.hostAddress(), c.TLS != nil); err != nil {
			problem := err.(*serverProblem)
			p.add("host", problem.message, problem.fix)
		}
	}
}

func (c *Config) validateCredentials(p *problems) {
	if c.Password != "" {
		p.add("password", "a password must not stand in the site file, which is copied, shown and sent around",
			"put it into a file with mode 0600 and write password_file: /etc/sluice/NAME.password")
	}
	if c.PasswordFile != "" && c.PasswordEnv != "" {
		p.add("password_env", "password_file and password_env are both given", "keep one of them")
	}
	if (c.PasswordFile != "" || c.PasswordEnv != "") && c.User == "" {
		p.add("user", "a password without a user name cannot be sent with MQTT 3.1.1", "add user: NAME") // [MQTT-3.1.2-22]
	}
	p.oneOf("password_hash", c.PasswordHash, "", "md5")
	if len(c.ClientID) > 65535 || strings.ContainsRune(c.ClientID, 0) {
		p.add("client_id", "not usable as a client id", "use up to 128 printable characters")
	}
	if t := c.TLS; t != nil {
		if (t.Cert == "") != (t.Key == "") {
			p.add("tls", "cert and key belong together", "give both files, or none")
		}
	}
	checkFile(p, "password_file", c.PasswordFile, true)
	if t := c.TLS; t != nil {
		checkFile(p, "tls.ca", t.CA, false)
		checkFile(p, "tls.cert", t.Cert, false)
		checkFile(p, "tls.key", t.Key, true)
	}
}

// checkFile warns about a file that is missing: it may be put there later, and
// is read at every connect. It refuses a secret file that others can read.
func checkFile(p *problems, field string, path configs.Path, secret bool) {
	if path == "" {
		return
	}
	name := string(path)
	info, err := os.Stat(name)
	switch {
	case err != nil:
		p.warn(field, fmt.Sprintf("cannot find %s now; the upstream waits until it is there", name), "check the path")
	case secret && info.Mode().Perm()&0o077 != 0:
		p.add(field, fmt.Sprintf("%s has mode %04o: others can read it", name, info.Mode().Perm()), "chmod 0600 "+name)
	}
}

func (c *Config) validateData(p *problems) {
	p.between("qos", c.QoS, 0, 2)
	if c.QoS == 2 && !c.Clean {
		p.add("clean", "qos 2 needs a clean session: after a break everything unacknowledged is sent as new messages, "+
			"which a stored session could take for the old ones", "set clean: true, or qos: 1") // [MQTT-4.3.3]
	}
	p.oneOf("payload", c.Payload, payloadValue, payloadJSON, payloadJSONDevice, payloadSparkplug)
	c.validateSparkplug(p)
	c.validateCommands(p)
	p.oneOf("retain", c.Retain, retainPoints, retainAlways, retainNever)
	p.oneOf("order", c.Order, "", orderLiveFirst, orderInOrder)
	if c.Payload == payloadValue && c.Order == orderLiveFirst {
		p.warn("order", "with payload value nobody can tell an old value of the backlog from a new one", "use order: in-order, or payload: json")
	}
	if _, err := parseRate(c.Drain); err != nil {
		p.add("drain", err.Error(), "write 1500/s, 20000 records/s or unlimited")
	}
	p.between("window", c.Window, 1, 10_000)
	p.sized("window_bytes", c.WindowBytes, 1<<10, 64<<20)
	p.sized("max_message", c.MaxMessage, 128, 64<<20)
	for i, glob := range c.Filter.Include {
		checkGlob(p, fmt.Sprintf("filter.include[%d]", i), glob)
	}
	for i, glob := range c.Filter.Exclude {
		checkGlob(p, fmt.Sprintf("filter.exclude[%d]", i), glob)
	}
	checkTopic(p, "drop_topic", c.DropTopic, "point", "device")
	if c.Topic != "" {
		checkTopic(p, "topic", c.Topic)
		if t, err := mapping.ParseTopic(c.Topic); err == nil && c.Payload == payloadJSONDevice && t.Uses("point") {
			p.add("topic", "a message of json-device carries many points", "remove {point} from the topic")
		}
	}
}

// validateSparkplug checks what an edge node of Sparkplug leaves no choice of. Its
// section checks itself.
func (c *Config) validateSparkplug(p *problems) {
	if c.Payload != payloadSparkplug {
		if c.Sparkplug != nil {
			p.add("sparkplug", fmt.Sprintf("there is a section sparkplug, and the payload is %s", c.Payload), "write payload: sparkplug, or remove the section")
		}
		return
	}
	if c.Topic != "" {
		p.add("topic", "the topics of Sparkplug are fixed", "remove topic; sparkplug.group and sparkplug.node name the edge node")
	}
	if !c.Clean {
		p.add("clean", "Sparkplug wants a clean session", "remove clean: false") // [principles-persistence-clean-session-311]
	}
	if c.MaxMessage < 4<<10 {
		p.add("max_message", fmt.Sprintf("max_message is %v, and births cannot be split", c.MaxMessage), "use 4KiB or more")
	}
}

func checkGlob(p *problems, field, glob string) {
	if glob == "" || strings.ContainsAny(glob, "+#[]{} ") {
		p.add(field, fmt.Sprintf("%q is not a pattern", glob), "write device, device/point or */energy_*; * stands for any characters")
	}
}

func (c *Config) validateTimes(p *problems) {
	p.within("keepalive", c.Keepalive, 5*time.Second, 18*time.Hour)
	if c.Keepalive%time.Second != 0 {
		p.add("keepalive", "keepalive is not in whole seconds", "use "+c.Keepalive.Round(time.Second).String())
	}
	if c.AckTimeout != 0 {
		p.within("ack_timeout", c.AckTimeout, time.Second, 24*time.Hour)
		if c.AckTimeout <= c.Keepalive {
			p.warn("ack_timeout", fmt.Sprintf("ack_timeout %v is not longer than keepalive %v: slow acknowledgements end connections that are alive",
				c.AckTimeout, c.Keepalive), "remove it, or use more than "+c.Keepalive.String())
		}
	}
	p.within("connect_timeout", c.ConnectTimeout, time.Second, 5*time.Minute)
	p.within("grace", c.Grace, 0, 5*time.Minute)
	if c.FailBack != 0 {
		p.within("fail_back", c.FailBack, 10*time.Second, 24*time.Hour)
	}
	p.within("backoff.min", c.Backoff.Min, 100*time.Millisecond, time.Hour)
	p.within("backoff.max", c.Backoff.Max, c.Backoff.Min, 24*time.Hour)
	p.within("backoff.refused", c.Backoff.Refused, c.Backoff.Min, 24*time.Hour)
}

func (c *Config) validateStatus(p *problems) {
	s := &c.Status
	p.oneOf("status.payload", s.Payload, "json", "text")
	p.between("status.qos", s.QoS, 0, 2)
	checkTopic(p, "status.topic", s.Topic, "point", "device")
	checkTopic(p, "status.device_topic", s.DeviceTopic, "point")
	if !strings.Contains(s.DeviceTopic, "{device}") {
		p.add("status.device_topic", "all devices would share one status topic", "put {device} into it")
	}
	if s.Online == s.Offline {
		p.add("status.online", "online and offline are the same word", "use two different words")
	}
	if !s.Retain {
		p.warn("status.retain", "without retain a new subscriber does not learn the status until it changes", "remove retain: false")
	}
}

// checkTopic parses a template that must not use the tokens without.
func checkTopic(p *problems, field, template string, without ...string) {
	topic, err := mapping.ParseTopic(template)
	if err != nil {
		var problem *mapping.TopicError
		if errors.As(err, &problem) {
			p.add(field, problem.Message, problem.Fix)
			return
		}
		p.add(field, err.Error(), "")
		return
	}
	for _, token := range without {
		if topic.Uses(token) {
			p.add(field, "{"+token+"} has no meaning here", "remove it")
		}
	}
}

// rate limits a lane. The zero rate is none.
type rate struct {
	perSecond float64
	records   bool // counts records, not messages
}

// parseRate reads "1500/s", "20000 records/s", "1500 messages/s", "unlimited".
func parseRate(text string) (rate, error) {
	if text == "unlimited" {
		return rate{}, nil
	}
	number, found := strings.CutSuffix(text, "/s")
	var r rate
	if n, ok := strings.CutSuffix(number, "records"); ok {
		number, r.records = n, true
	} else {
		number = strings.TrimSuffix(number, "messages")
	}
	var err error
	r.perSecond, err = strconv.ParseFloat(strings.TrimSpace(number), 64)
	if !found || err != nil || !(r.perSecond >= 0.01 && r.perSecond <= 1e9) {
		return rate{}, fmt.Errorf("%q is not a rate", text)
	}
	return r, nil
}

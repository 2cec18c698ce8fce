//go:build peers

package peertest

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// versions are the protocols that Mosquitto's clients speak.
var versions = []string{"mqttv31", "mqttv311", "mqttv5"}

// mosquitto runs one of Mosquitto's clients to its end and returns its lines.
func mosquitto(t *testing.T, name, address string, args ...string) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, at(t, address, args)...).Output()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

// at puts host and port before the arguments of a client.
func at(t *testing.T, address string, args []string) []string {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return append([]string{"-h", host, "-p", port}, args...)
}

// listener is a mosquitto_sub that has subscribed.
type listener struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines chan string // what -F prints
}

// listen starts a mosquitto_sub and waits until its subscriptions are granted.
func listen(t *testing.T, address, format string, args ...string) *listener {
	t.Helper()
	args = append(at(t, address, args), "-d", "-F", "MSG "+format)
	l := &listener{t: t, cmd: exec.Command("stdbuf", append([]string{"-oL", "mosquitto_sub"}, args...)...), lines: make(chan string, 1000)}
	l.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := l.cmd.StdoutPipe()
	if err == nil {
		err = l.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	subscribed, ended := make(chan struct{}, 10), make(chan struct{})
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if text, found := strings.CutPrefix(lines.Text(), "MSG "); found {
				l.lines <- text
			} else if strings.HasPrefix(lines.Text(), "Subscribed (mid") {
				subscribed <- struct{}{}
			}
		}
	}()
	t.Cleanup(func() {
		l.kill()
		<-ended
		_ = l.cmd.Wait() // killed
	})
	select {
	case <-subscribed:
	case <-ended:
		t.Fatalf("mosquitto_sub %v ended", args)
	case <-time.After(patience):
		t.Fatalf("mosquitto_sub %v: not subscribed", args)
	}
	return l
}

// kill ends the client without a DISCONNECT.
func (l *listener) kill() { _ = l.cmd.Process.Kill() } // it may have ended

// expect waits for lines in their order.
func (l *listener) expect(want ...string) {
	l.t.Helper()
	for _, w := range want {
		select {
		case got := <-l.lines:
			if got != w {
				l.t.Errorf("got %q, want %q", got, w)
			}
		case <-time.After(patience):
			l.t.Fatalf("%q did not come", w)
		}
	}
}

func TestMosquittoLiveAndRetained(t *testing.T) {
	t.Parallel()
	address := start(t, "memory", "").addresses[""]
	for _, version := range versions {
		for qos := range 3 {
			t.Run(fmt.Sprint(version, "/", qos), func(t *testing.T) {
				q, topic := strconv.Itoa(qos), fmt.Sprint("TopicA/", version, "/", qos)
				l := listen(t, address, "%q %r %p", "-V", version, "-q", "2", "-t", topic)
				mosquitto(t, "mosquitto_pub", address, "-V", version, "-q", q, "-t", topic, "-m", "one")
				mosquitto(t, "mosquitto_pub", address, "-V", version, "-q", q, "-t", topic, "-m", "kept", "-r")
				l.expect(q+" 0 one", q+" 0 kept")
				got := mosquitto(t, "mosquitto_sub", address, "-V", version, "-q", "2", "-t", topic, "-C", "1", "-F", "%q %r %p")
				if want := []string{q + " 1 kept"}; !slices.Equal(got, want) {
					t.Errorf("retained: %q, want %q", got, want)
				}
				mosquitto(t, "mosquitto_pub", address, "-V", version, "-q", q, "-t", topic, "-n", "-r")
				l.expect(q + " 0 ")
				listen(t, address, "%p", "-V", version, "-t", topic, "-t", topic+"/x").expectNothing(address, topic+"/x")
			})
		}
	}
}

// expectNothing checks that the next message is the one that it publishes.
func (l *listener) expectNothing(address, topic string) {
	l.t.Helper()
	mosquitto(l.t, "mosquitto_pub", address, "-t", topic, "-m", "last")
	l.expect("last")
}

// away are the ways in which the broker can end while a session is away.
var away = []struct {
	name   string
	level  string
	signal syscall.Signal
}{
	{"running", "memory", 0},
	{"restarted", "buffered", syscall.SIGTERM},
	{"killed", "sync", syscall.SIGKILL},
}

func TestMosquittoPersistentSession(t *testing.T) {
	const messages = 200
	for _, c := range away {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			g := start(t, c.level, "")
			var want []string
			for i := range messages {
				want = append(want, strconv.Itoa(i))
			}
			each := func(do func(version, qos, client string)) {
				for _, version := range versions {
					for _, qos := range []string{"1", "2"} {
						do(version, qos, "away-"+version+"-"+qos)
					}
				}
			}
			session := func(version, qos, client string) []string {
				args := []string{"-V", version, "-q", qos, "-i", client, "-c", "-t", "TopicA/" + client}
				if version == "mqttv5" {
					args = append(args, "-x", "3600")
				}
				return args
			}
			each(func(version, qos, client string) {
				mosquitto(t, "mosquitto_sub", g.addresses[""], append(session(version, qos, client), "-E")...)
			})
			each(func(version, qos, client string) {
				publish(t, g.addresses[""], version, qos, "TopicA/"+client, want)
			})
			if c.signal != 0 {
				g.stop(c.signal)
				g.run(1)
			}
			each(func(version, qos, client string) {
				got := mosquitto(t, "mosquitto_sub", g.addresses[""], append(session(version, qos, client), "-C", strconv.Itoa(messages))...)
				if !slices.Equal(got, want) {
					t.Errorf("%s: %d messages, want %d in order: %q", client, len(got), messages, got)
				}
			})
		})
	}
}

// publish sends each line as a message, over one connection.
func publish(t *testing.T, address, version, qos, topic string, lines []string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "mosquitto_pub", at(t, address, []string{"-V", version, "-q", qos, "-t", topic, "-l"})...)
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("mosquitto_pub: %v\n%s", err, out)
	}
}

func TestMosquittoProperties(t *testing.T) {
	t.Parallel()
	address := start(t, "memory", "").addresses[""]
	l := listen(t, address, "%C|%D|%F|%P|%R|%S|%p", "-V", "mqttv5", "-q", "1", "-t", "TopicA/p", "-D", "subscribe", "subscription-identifier", "7")
	mosquitto(t, "mosquitto_pub", address, "-V", "mqttv5", "-q", "1", "-t", "TopicA/p", "-m", "x",
		"-D", "publish", "content-type", "text/plain", "-D", "publish", "correlation-data", "c1",
		"-D", "publish", "payload-format-indicator", "1", "-D", "publish", "user-property", "unit", "kW",
		"-D", "publish", "response-topic", "TopicA/answer", "-D", "publish", "message-expiry-interval", "60")
	l.expect("text/plain|c1|1|unit:kW|TopicA/answer|7|x")
}

func TestMosquittoRequestAndResponse(t *testing.T) {
	t.Parallel()
	address := start(t, "memory", "").addresses[""]
	asked := listen(t, address, "%R %p", "-V", "mqttv5", "-q", "1", "-t", "TopicA/question")
	rr := exec.CommandContext(t.Context(), "mosquitto_rr", at(t, address, []string{"-V", "mqttv5", "-q", "1", "-W", "20",
		"-t", "TopicA/question", "-e", "TopicA/answer", "-m", "how much"})...)
	var answer strings.Builder
	rr.Stdout = &answer
	if err := rr.Start(); err != nil {
		t.Fatal(err)
	}
	asked.expect("TopicA/answer how much")
	mosquitto(t, "mosquitto_pub", address, "-V", "mqttv5", "-q", "1", "-t", "TopicA/answer", "-m", "42")
	if err := rr.Wait(); err != nil || strings.TrimSpace(answer.String()) != "42" {
		t.Errorf("answer %q, %v", answer.String(), err)
	}
}

func TestMosquittoWill(t *testing.T) {
	t.Parallel()
	address := start(t, "memory", "").addresses[""]
	for _, version := range versions {
		l := listen(t, address, "%q %p", "-V", version, "-q", "2", "-t", "TopicA/will")
		listen(t, address, "%p", "-V", version, "-t", "TopicA/other",
			"--will-topic", "TopicA/will", "--will-payload", "gone", "--will-qos", "1").kill()
		l.expect("1 gone")
	}
}

func TestMosquittoSharedSubscription(t *testing.T) {
	t.Parallel()
	address := start(t, "memory", "").addresses[""]
	var members []*listener
	for range 3 {
		members = append(members, listen(t, address, "%p", "-V", "mqttv5", "-q", "1", "-t", "$share/group/TopicA/shared", "-t", "TopicA/end"))
	}
	var want []string
	for i := range 90 {
		want = append(want, fmt.Sprintf("%02d", i))
	}
	publish(t, address, "mqttv5", "1", "TopicA/shared", want)
	publish(t, address, "mqttv5", "1", "TopicA/end", []string{"end"})
	var got []string
	for i, m := range members {
		before := len(got)
		for {
			line := ""
			select {
			case line = <-m.lines:
			case <-time.After(patience):
				t.Fatalf("member %d: no end", i)
			}
			if line == "end" {
				break
			}
			got = append(got, line)
		}
		if len(got) == before {
			t.Errorf("member %d got nothing", i)
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("together %d messages, want %d, each once: %q", len(got), len(want), got)
	}
}

package modbussim

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/sources/register"
)

// exchangeIn sends requests to a server at the given times, in virtual time,
// and returns what came back: "time hex" for each run of bytes, "time closed"
// at the end. serve runs the server on its side of the pipe.
func exchangeIn(t *testing.T, serve func(context.Context, net.Conn) error, requests map[time.Duration]string) (events []string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		ctx, cancel := context.WithCancel(t.Context())
		start := time.Now()
		served, read := make(chan error), make(chan struct{})
		go func() { served <- serve(ctx, server) }()
		go func() {
			defer close(read)
			buffer := make([]byte, 2048)
			for {
				n, err := client.Read(buffer)
				at := time.Since(start).Round(time.Microsecond)
				if err != nil {
					events = append(events, fmt.Sprintf("%v closed", at))
					return
				}
				events = append(events, fmt.Sprintf("%v %s", at, strings.ToUpper(hex.EncodeToString(buffer[:n]))))
			}
		}()
		for at, request := range requests {
			time.AfterFunc(at, func() { _, _ = client.Write(unhex(t, request)) }) // fails after a close: wanted
		}
		time.Sleep(time.Minute)
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
		<-read
		_ = client.Close()
	})
	if last := len(events) - 1; last >= 0 && events[last] == "1m0s closed" {
		events = events[:last]
	}
	return events
}

// faultServer has two units with two holding registers each, and rules.
func faultServer(t *testing.T, rules ...string) *Server {
	t.Helper()
	s, u := newUnit(t, UnitConfig{})
	set(t, u, register.HoldingRegister, 0, 0x1111, 0x2222)
	other, err := s.AddUnit(7, UnitConfig{})
	if err != nil {
		t.Fatal(err)
	}
	set(t, other, register.HoldingRegister, 0, 0x7777, 0x7777)
	for _, rule := range rules {
		f, err := ParseFault(rule)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.AddFault(f); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// The request to unit 1 for holding registers 0 and 1, and its reply.
const (
	tcpRequest = "0005 0000 0006 01 03 0000 0002"
	tcpReply   = "000500000007010304" + "11112222"
)

// tcpFaults is what comes back under each rule, and when.
var tcpFaults = map[string][]string{
	"no fault":              {"0s " + tcpReply},
	"late 2s":               {"2s " + tcpReply},
	"duplicate":             {"0s " + tcpReply, "0s " + tcpReply},
	"half":                  {"0s 000500000007"},
	"half-late 300ms":       {"0s 000500000007", "300ms 01030411112222"},
	"half-close":            {"0s 000500000007", "0s closed"},
	"wrong-unit":            {"0s 00050000000702030411112222"},
	"other-unit 1s":         {"0s 00050000000707030477777777", "1s " + tcpReply},
	"wrong-transaction":     {"0s 00060000000701030411112222"},
	"wrong-protocol":        {"0s 00050001000701030411112222"},
	"mbap-length 0":         {"0s 00050000000001030411112222"},
	"mbap-length 1":         {"0s 00050000000101030411112222"},
	"mbap-length 300":       {"0s 00050000012C01030411112222"},
	"mbap-length 65535":     {"0s 00050000FFFF01030411112222"},
	"wrong-function":        {"0s 00050000000701040411112222"},
	"wrong-byte-count":      {"0s 00050000000701030611112222"},
	"fewer":                 {"0s 0005000000050103021111"},
	"fewer 9":               {"0s 000500000003010300"},
	"more 2":                {"0s 0005000000" + "0B" + "010308" + "1111222200000000"},
	"bad-crc":               {"0s " + tcpReply},
	"noise-before 2":        {"0s 9FBE" + tcpReply},
	"noise-after 2":         {"0s " + tcpReply + "9FBE"},
	"garbage 3":             {"0s 9FBE55"},
	"echo":                  {"0s 000500000006010300000002", "0s " + tcpReply},
	"exception 11":          {"0s 00050000000301830B"},
	"exception":             {"0s 000500000003018304"},
	"exception-split 2 5ms": {"0s 00050000", "5ms 0003018302"},
	"busy":                  {"0s 000500000003018306"},
	"silence":               nil,
	"close":                 {"0s closed"},
	"close-after":           {"0s " + tcpReply, "0s closed"},
	"reboot":                {"0s closed"},
	"dribble 1ms": {"0s 00", "1ms 05", "2ms 00", "3ms 00", "4ms 00", "5ms 07", "6ms 01", "7ms 03", "8ms 04",
		"9ms 11", "10ms 11", "11ms 22", "12ms 22"},
}

func TestFaultBytesOverTCP(t *testing.T) {
	for rule, want := range tcpFaults {
		t.Run(rule, func(t *testing.T) {
			s := faultServer(t)
			if rule != "no fault" {
				s = faultServer(t, rule)
			}
			got := exchangeIn(t, s.ServeTCPConn, map[time.Duration]string{0: tcpRequest})
			if rule == "noise-before 2" && !strings.HasSuffix(got[0], tcpReply) || rule == "noise-after 2" && !strings.HasPrefix(got[0], "0s "+tcpReply) {
				t.Errorf("the reply is not where it belongs: %q", got)
			}
			if strings.HasPrefix(rule, "noise") || strings.HasPrefix(rule, "garbage") {
				got, want = lengths(got), lengths(want) // random bytes
			}
			if !slices.Equal(got, want) {
				t.Errorf("got  %q\nwant %q", got, want)
			}
			if n := len(s.Requests()); n != 1 {
				t.Errorf("%d requests noted, want 1", n)
			}
		})
	}
	covered := fmt.Sprint(tcpFaults)
	for _, kind := range FaultKinds() {
		if kind != Random && !strings.Contains(covered, kind.String()) {
			t.Errorf("fault %v is not tested", kind)
		}
	}
}

func lengths(events []string) (out []string) {
	for _, e := range events {
		at, data, _ := strings.Cut(e, " ")
		out = append(out, fmt.Sprintf("%s %d", at, len(data)/2))
	}
	return out
}

func TestFaultBytesOverRTU(t *testing.T) {
	const (
		request = "01 03 0000 0002 C40B"
		reply   = "01030411112222" + "37B3"
	)
	tests := map[string][]string{
		"no fault":                {"0s " + reply},
		"late 2s":                 {"2s " + reply},
		"duplicate":               {"0s " + reply, "0s " + reply},
		"half":                    {"0s 01030411"},
		"bad-crc":                 {"0s 0103041111222237B2"},
		"wrong-unit":              {"0s 0203041111222204B3"},
		"wrong-function":          {"0s 01040411112222" + "3604"},
		"fewer":                   {"0s 0103021111" + "7418"},
		"wrong-transaction":       {"0s " + reply},
		"echo":                    {"0s 010300000002C40B", "0s " + reply},
		"exception-split 2 200ms": {"0s 0183", "200ms 02C0F1"},
		"close":                   {"0s closed"},
		"silence":                 nil,
	}
	for rule, want := range tests {
		t.Run(rule, func(t *testing.T) {
			s := faultServer(t)
			if rule != "no fault" {
				s = faultServer(t, rule)
			}
			got := exchangeIn(t, func(ctx context.Context, c net.Conn) error { return s.ServeRTU(ctx, c, LineConfig{}) },
				map[time.Duration]string{0: request})
			if !slices.Equal(got, want) {
				t.Errorf("got  %q\nwant %q", got, want)
			}
		})
	}
}

func TestLateReplyLetsOthersPass(t *testing.T) {
	s := faultServer(t, "unit=1 late 1s nth 1")
	got := exchangeIn(t, s.ServeTCPConn, map[time.Duration]string{
		0:                      "0001 0000 0006 01 03 0000 0001",
		300 * time.Millisecond: "0002 0000 0006 07 03 0000 0001",
	})
	want := []string{"300ms 0002000000050703027777", "1s 0001000000050103021111"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// TestLateRepliesKeepOutOfOtherFrames: on TCP, where frames have no check sum, a
// late reply within another would pass for its data.
func TestLateRepliesKeepOutOfOtherFrames(t *testing.T) {
	requests := map[time.Duration]string{
		0:                      "0001 0000 0006 01 03 0000 0001",
		900 * time.Millisecond: "0002 0000 0006 07 03 0000 0001",
	}
	tests := map[string][]string{
		"unit=7 half-late 500ms": {"900ms 0002000000", "1.4s 050703027777", "1.4s 0001000000050103021111"},
		"unit=7 half":            {"900ms 0002000000"},
	}
	for rule, want := range tests {
		s := faultServer(t, "unit=1 late 1s", rule)
		if got := exchangeIn(t, s.ServeTCPConn, requests); !slices.Equal(got, want) {
			t.Errorf("%s: got  %q\nwant %q", rule, got, want)
		}
	}
}

func TestRebootSilencesTheUnit(t *testing.T) {
	s := faultServer(t, "reboot 5s times 1")
	first := exchangeIn(t, s.ServeTCPConn, map[time.Duration]string{0: "0001 0000 0006 01 03 0000 0001"})
	if !reflect.DeepEqual(first, []string{"0s closed"}) {
		t.Errorf("got %q", first)
	}
	s.Unit(1).silenceUntil(time.Time{}) // virtual time begins anew in each bubble
	synctest.Test(t, func(t *testing.T) {
		u := s.Unit(1)
		u.silenceUntil(time.Now().Add(5 * time.Second))
		if u.state(time.Now().Add(4999*time.Millisecond)) != Dead || u.state(time.Now().Add(5*time.Second)) != Alive {
			t.Error("the unit is not silent for 5 s")
		}
	})
}

// harmed lists which of 12 requests for two registers from 10 on each rule harms.
var harmed = map[string]string{
	"silence":                  "1 2 3 4 5 6 7 8 9 10 11 12",
	"silence every 5":          "5 10",
	"silence nth 3":            "3",
	"silence times 2":          "1 2",
	"silence every 2 times 2":  "2 4",
	"busy 3 every 5":           "5 6 7 10 11 12",
	"unit=2 silence":           "",
	"holding silence":          "1 2 3 4 5 6 7 8 9 10 11 12",
	"input silence":            "",
	"holding 11 silence":       "1 2 3 4 5 6 7 8 9 10 11 12",
	"holding 12 silence":       "",
	"holding 0-9 silence":      "",
	"holding 0x0-0xA silence":  "1 2 3 4 5 6 7 8 9 10 11 12",
	"unit=1 silence rate 100%": "1 2 3 4 5 6 7 8 9 10 11 12",
	"silence rate 30% seed 5":  "rate",
	"silence rate 0.3 seed 5":  "rate",
}

func TestWhichRequestsAreHarmed(t *testing.T) {
	for rule, want := range harmed {
		t.Run(rule, func(t *testing.T) {
			s := faultServer(t)
			f, err := ParseFault(rule)
			if err != nil {
				t.Fatal(err)
			}
			r, err := s.AddFault(f)
			if err != nil {
				t.Fatal(err)
			}
			var hit []string
			for i := range 12 {
				req := Request{Unit: 1, Table: register.HoldingRegister, Address: 10, Quantity: 2}
				if _, _, acts := r.meet(&req, onTCP); acts {
					hit = append(hit, fmt.Sprint(i+1))
				}
			}
			if want == "rate" {
				if len(hit) == 0 || len(hit) > 8 {
					t.Errorf("rate of 30 %% harmed %v of 12", hit)
				}
			} else if got := strings.Join(hit, " "); got != want {
				t.Errorf("harmed %q, want %q", got, want)
			}
			if int(r.Hits()) != len(hit) {
				t.Errorf("hits: %d, want %d", r.Hits(), len(hit))
			}
		})
	}
}

func TestParseFault(t *testing.T) {
	got, err := ParseFault("unit=3 holding 100 late 2s every 10")
	want := Fault{Kind: Late, Unit: 3, Table: register.HoldingRegister, Address: 100, Quantity: 1, Delay: 2 * time.Second, Every: 10}
	if err != nil || got != want {
		t.Errorf("got %+v %v, want %+v", got, err, want)
	}
	for text, want := range map[string]string{
		"":                      `"" is no fault`,
		"unit=0 silence":        `unit "0" is not 1 to 247`,
		"unit=300 silence":      `unit "300" is not`,
		"lte":                   `"lte" is no fault; there are late, duplicate`,
		"holding 5-3 silence":   `"5-3" is not an address`,
		"holding 70000 silence": `"70000" is not an address`,
		"late 2":                `cannot take the argument "2"`,
		"silence 2s":            `cannot take the argument "2s"`,
		"exception 2 3":         `cannot take the argument "3"`,
		"exception 300":         `cannot take the argument "300"`,
		"silence every":         `"every" "" is not a number`,
		"silence every 0":       `"every" "0" is not a number`,
		"silence often 3":       `"often" is not every`,
		"silence rate 200%":     `rate "200%" is not`,
		"silence rate NaN":      `rate "NaN" is not`,
		"garbage 5000":          "count 5000 is more than 1024",
		"late 1s every 3 nth":   `"nth" ""`,
	} {
		if _, err := ParseFault(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want ... %s ...", text, err, want)
		}
	}
}

func TestRandomFaultsReachEveryKind(t *testing.T) {
	count := func(seed uint64, on transports) map[FaultKind]int {
		s := faultServer(t)
		r, err := s.AddFault(FaultRandom(seed, 0.5))
		if err != nil {
			t.Fatal(err)
		}
		seen := make(map[FaultKind]int)
		for range 10000 {
			if f, _, acts := r.meet(&Request{Unit: 1}, on); acts {
				seen[f.Kind]++
				if f.Delay > time.Second || f.Delay < 0 {
					t.Fatalf("%v with delay %v", f.Kind, f.Delay)
				}
			}
		}
		return seen
	}
	tcp, rtu := count(1, onTCP|redialable), count(1, onRTU)
	for _, kind := range FaultKinds() {
		random := faultKinds[kind].random
		if (tcp[kind] > 0) != (random&(onTCP|redialable) != 0) || (rtu[kind] > 0) != (random&onRTU != 0) {
			t.Errorf("%v: %d times on TCP, %d on RTU", kind, tcp[kind], rtu[kind])
		}
	}
	if again := count(1, onRTU); !reflect.DeepEqual(rtu, again) {
		t.Error("the same seed gives other faults")
	}
	if other := count(2, onRTU); reflect.DeepEqual(rtu, other) {
		t.Error("another seed gives the same faults")
	}
}

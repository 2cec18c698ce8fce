package wire

import (
	"strings"
	"testing"
)

// wrong is a packet that the standard forbids, for each of versions.
type wrong struct {
	name     string
	versions string // of 3, 4, 5; 0 is a connection without a CONNECT
	first    byte
	body     string
	code     byte
}

func refuseAll(t *testing.T, table []wrong) {
	t.Helper()
	for _, c := range table {
		for _, v := range c.versions {
			p, refused := decode(t, decoderOf(byte(v-'0')), c.first, c.body)
			switch {
			case refused == nil:
				t.Errorf("%s, version %c: %02x %s taken as %+v", c.name, v, c.first, c.body, p)
			case refused.Code != c.code:
				t.Errorf("%s, version %c: code %#x (%v), want %#x", c.name, v, refused.Code, refused, c.code)
			}
		}
	}
}

func TestConnectThatIsWrong(t *testing.T) {
	refuseAll(t, []wrong{
		{"[MQTT-3.1.0-1] another packet first", "0", 0xc0, ``, 0x82},
		{"[MQTT-3.1.0-2] a second CONNECT", "345", 0x10, `"MQTT" version: 04 flags: 02 keep: 003c id: "c"`, 0x82},
		{"[MQTT-2.1.3-1] flags of the header", "0", 0x11, `"MQTT" version: 04 flags: 02 keep: 003c id: "c"`, 0x81},
		{"[MQTT-3.1.2-1] another protocol", "0", 0x10, `"MQTS" version: 04 flags: 02 keep: 003c id: "c"`, 0x82},
		{"[MQTT-3.1.2-1] name in small letters", "0", 0x10, `"mqtt" version: 04 flags: 02 keep: 003c id: "c"`, 0x82},
		{"[MQTT-3.1.2-2] version 6", "0", 0x10, `"MQTT" version: 06 flags: 02 keep: 003c props: 00 id: "c"`, 0x84},
		{"[MQTT-3.1.2-2] version 3 with the new name", "0", 0x10, `"MQTT" version: 03 flags: 02 keep: 003c id: "c"`, 0x84},
		{"[MQTT-3.1.2-2] version 4 with the old name", "0", 0x10, `"MQIsdp" version: 04 flags: 02 keep: 003c id: "c"`, 0x84},
		{"[MQTT-3.1.2-3] reserved flag", "0", 0x10, `"MQTT" version: 04 flags: 03 keep: 003c id: "c"`, 0x81},
		{"[MQTT-3.1.2-11] will QoS without a will", "0", 0x10, `"MQTT" version: 05 flags: 0a keep: 003c props: 00 id: "c"`, 0x81},
		{"[MQTT-3.1.2-13] will retain without a will", "0", 0x10, `"MQTT" version: 04 flags: 22 keep: 003c id: "c"`, 0x81},
		{"[MQTT-3.1.2-12] will QoS 3", "0", 0x10, `"MQTT" version: 04 flags: 1e keep: 003c id: "c" "w" "p"`, 0x81},
		{"[MQTT-3.1.2-22] password without user, 3.1.1", "0", 0x10, `"MQTT" version: 04 flags: 42 keep: 003c id: "c" password: "p"`, 0x81},
		{"[MQTT-3.1.2-22] password without user, 3.1", "0", 0x10, `"MQIsdp" version: 03 flags: 42 keep: 003c id: "c" password: "p"`, 0x81},
		{"[MQTT-3.1.3-8] no id and a session, 3.1.1", "0", 0x10, `"MQTT" version: 04 flags: 00 keep: 003c id: ""`, 0x85},
		{"no id, 3.1", "0", 0x10, `"MQIsdp" version: 03 flags: 02 keep: 003c id: ""`, 0x85},
		{"client id too long", "0", 0x10, `"MQTT" version: 04 flags: 02 keep: 003c id: "` + strings.Repeat("c", 257) + `"`, 0x85},
		{"[MQTT-1.5.4-1] client id no UTF-8", "0", 0x10, `"MQTT" version: 04 flags: 02 keep: 003c id: 0002 c328`, 0x81},
		{"[MQTT-1.5.4-2] client id with NUL", "0", 0x10, `"MQTT" version: 04 flags: 02 keep: 003c id: 0001 00`, 0x81},
		{"client id with a line break", "0", 0x10, `"MQTT" version: 04 flags: 02 keep: 003c id: 0001 0a`, 0x85},
		{"ends in the name", "0", 0x10, `0004 'MQ'`, 0x81},
		{"ends after the name", "0", 0x10, `"MQTT"`, 0x81},
		{"ends after the version", "0", 0x10, `"MQTT" version: 04`, 0x81},
		{"ends in the keep-alive", "0", 0x10, `"MQTT" version: 04 flags: 02 keep: 00`, 0x81},
		{"no client id", "0", 0x10, `"MQTT" version: 05 flags: 02 keep: 003c props: 00`, 0x81},
		{"no will", "0", 0x10, `"MQTT" version: 04 flags: 06 keep: 003c id: "c"`, 0x81},
		{"no will payload", "0", 0x10, `"MQTT" version: 04 flags: 06 keep: 003c id: "c" topic: "w"`, 0x81},
		{"no user name", "0", 0x10, `"MQTT" version: 04 flags: 82 keep: 003c id: "c"`, 0x81},
		{"user name no UTF-8", "0", 0x10, `"MQTT" version: 04 flags: 82 keep: 003c id: "c" user: 0001 ff`, 0x81},
		{"user name with a line break", "0", 0x10, `"MQTT" version: 04 flags: 82 keep: 003c id: "c" user: 0001 0a`, 0x81},
		{"no password", "0", 0x10, `"MQTT" version: 04 flags: c2 keep: 003c id: "c" user: "u"`, 0x81},
		{"surplus", "0", 0x10, `"MQTT" version: 04 flags: 02 keep: 003c id: "c" surplus: 00`, 0x81},
		{"[MQTT-3.3.2-2] will topic with a wildcard", "0", 0x10, `"MQTT" version: 04 flags: 06 keep: 003c id: "c" topic: "w/#" "p"`, 0x81},
		{"[MQTT-4.7.3-1] will topic empty", "0", 0x10, `"MQTT" version: 04 flags: 06 keep: 003c id: "c" topic: "" "p"`, 0x81},
		{"will topic too deep", "0", 0x10, `"MQTT" version: 04 flags: 06 keep: 003c id: "c" topic: "a/a/a/a/a/a/a/a/a" "p"`, 0x90},
	})
}

func TestConnectPropertiesThatAreWrong(t *testing.T) {
	connect := func(props string) string {
		return `"MQTT" version: 05 flags: 02 keep: 003c props: ` + props + ` id: "c"`
	}
	will := func(props, payload string) string {
		return `"MQTT" version: 05 flags: 06 keep: 003c props: 00 id: "c" will: ` + props + ` topic: "w" ` + payload
	}
	refuseAll(t, []wrong{
		{"[MQTT-3.1.2.11.3] receive maximum 0", "0", 0x10, connect(`03 21 0000`), 0x82},
		{"[MQTT-3.1.2.11.4] maximum packet size 0", "0", 0x10, connect(`05 27 00000000`), 0x82},
		{"session expiry twice", "0", 0x10, connect(`0a 11 00000001 11 00000001`), 0x82},
		{"receive maximum twice", "0", 0x10, connect(`06 21 0001 21 0001`), 0x82},
		{"topic alias maximum twice", "0", 0x10, connect(`06 22 0001 22 0001`), 0x82},
		{"request response information 2", "0", 0x10, connect(`02 19 02`), 0x82},
		{"request problem information 2", "0", 0x10, connect(`02 17 02`), 0x82},
		{"request problem information twice", "0", 0x10, connect(`04 17 01 17 01`), 0x82},
		{"authentication method twice", "0", 0x10, connect(`08 15 "m" 15 "m"`), 0x82},
		{"authentication data without a method", "0", 0x10, connect(`04 16 "d"`), 0x82},
		{"[MQTT-2.2.2-2] payload format", "0", 0x10, connect(`02 01 01`), 0x81},
		{"[MQTT-2.2.2-2] message expiry", "0", 0x10, connect(`05 02 00000001`), 0x81},
		{"[MQTT-2.2.2-2] topic alias", "0", 0x10, connect(`03 23 0001`), 0x81},
		{"[MQTT-2.2.2-2] will delay outside the will", "0", 0x10, connect(`05 18 00000001`), 0x81},
		{"[MQTT-2.2.2-2] server keep-alive", "0", 0x10, connect(`03 13 0001`), 0x81},
		{"[MQTT-2.2.2-2] reason string", "0", 0x10, connect(`04 1f "r"`), 0x81},
		{"[MQTT-2.2.2-2] unknown", "0", 0x10, connect(`02 7f 00`), 0x81},
		{"[MQTT-2.2.2-2] identifier of two bytes", "0", 0x10, connect(`03 8101 00`), 0x81},
		{"a value beyond the section", "0", 0x10, connect(`04 11 000000`), 0x81},
		{"a user property without value", "0", 0x10, connect(`04 26 "k"`), 0x81},
		{"a user property no UTF-8", "0", 0x10, connect(`06 26 0001 ff 0000`), 0x81},
		{"a section beyond the packet", "0", 0x10, connect(`7f`), 0x81},
		{"[MQTT-1.5.5-1] length of the section too long", "0", 0x10, connect(`8000`), 0x81},
		{"length of five bytes", "0", 0x10, connect(`ffffffff01`), 0x81},
		{"[MQTT-2.2.2-2] session expiry in the will", "0", 0x10, will(`05 11 00000001`, `"p"`), 0x81},
		{"[MQTT-2.2.2-2] topic alias in the will", "0", 0x10, will(`03 23 0001`, `"p"`), 0x81},
		{"will delay twice", "0", 0x10, will(`0a 18 00000001 18 00000001`, `"p"`), 0x82},
		{"payload format 2 in the will", "0", 0x10, will(`02 01 02`, `"p"`), 0x82},
		{"response topic with a wildcard in the will", "0", 0x10, will(`04 08 "+"`, `"p"`), 0x82},
		{"[MQTT-3.1.3.2.3] will payload no UTF-8", "0", 0x10, will(`02 01 01`, `0001 ff`), 0x99},
	})
}

func TestPublishThatIsWrong(t *testing.T) {
	deep, long := strings.Repeat("a/", 8)+"a", strings.Repeat("a", 1025)
	refuseAll(t, []wrong{
		{"[MQTT-3.3.1-4] QoS 3", "345", 0x36, `"t" id: 0001 00`, 0x81},
		{"[MQTT-3.3.1-2] DUP at QoS 0", "345", 0x38, `"t" 00`, 0x81},
		{"[MQTT-2.2.1-3] no packet identifier", "345", 0x32, `"t" id: 0000 00`, 0x82},
		{"[MQTT-3.3.2-2] + in the topic", "345", 0x30, `"t/+" 00`, 0x81},
		{"[MQTT-3.3.2-2] # in the topic", "345", 0x30, `"t/#" 00`, 0x81},
		{"[MQTT-4.7.3-1] empty topic", "34", 0x30, `""`, 0x81},
		{"[MQTT-3.3.2.1] empty topic without alias", "5", 0x30, `"" props: 00`, 0x82},
		{"[MQTT-3.3.2-1] topic no UTF-8", "345", 0x30, `0002 c328 00`, 0x81},
		{"[MQTT-3.3.2-1] topic begins in the middle of a letter", "345", 0x30, `0001 80 00`, 0x81},
		{"[MQTT-1.5.4-2] NUL behind a letter of two bytes", "345", 0x30, `0003 c3a400 00`, 0x81},
		{"[MQTT-3.3.2-1] topic a surrogate", "345", 0x30, `0003 eda080 00`, 0x81},
		{"[MQTT-1.5.4-2] NUL in the topic", "345", 0x30, `0003 610061 00`, 0x81},
		{"control character in the topic", "345", 0x30, `0003 610161 00`, 0x81},
		{"control character of two bytes", "345", 0x30, `0003 61c285 00`, 0x81},
		{"a non-character in the topic", "345", 0x30, `0003 efbfbf 00`, 0x81},
		{"topic with too many levels", "345", 0x30, `"` + deep + `" 00`, 0x90},
		{"topic too long", "345", 0x30, `"` + long + `" 00`, 0x90},
		{"ends in the topic", "345", 0x30, `0004 'to'`, 0x81},
		{"empty body", "345", 0x30, ``, 0x81},
		{"ends before the identifier", "345", 0x32, `"t"`, 0x81},
		{"ends in the identifier", "345", 0x32, `"t" 00`, 0x81},
		{"ends before the properties", "5", 0x30, `"t"`, 0x81},
		{"[MQTT-3.3.2-8] alias 0", "5", 0x30, `"t" props: 03 23 0000`, 0x94},
		{"[MQTT-3.3.2-9] alias above the maximum", "5", 0x30, `"t" props: 03 23 0004`, 0x94},
		{"[MQTT-3.3.2.3.4] alias never set", "5", 0x30, `"" props: 03 23 0001`, 0x82},
		{"alias twice", "5", 0x30, `"t" props: 06 23 0001 23 0001`, 0x82},
		{"[MQTT-3.3.4-6] subscription identifier", "5", 0x30, `"t" props: 02 0b 01`, 0x82},
		{"payload format 2", "5", 0x30, `"t" props: 02 01 02`, 0x82},
		{"payload format twice", "5", 0x30, `"t" props: 04 01 00 01 00`, 0x82},
		{"[MQTT-3.3.2.3.2] payload no UTF-8", "5", 0x30, `"t" props: 02 01 01 payload: ff`, 0x99},
		{"message expiry twice", "5", 0x30, `"t" props: 0a 02 00000001 02 00000001`, 0x82},
		{"message expiry of three bytes", "5", 0x30, `"t" props: 04 02 000001`, 0x81},
		{"content type twice", "5", 0x30, `"t" props: 08 03 "a" 03 "b"`, 0x82},
		{"content type no UTF-8", "5", 0x30, `"t" props: 04 03 0001 ff`, 0x81},
		{"[MQTT-3.3.2-14] response topic with a wildcard", "5", 0x30, `"t" props: 06 08 "a/#"`, 0x82},
		{"response topic empty", "5", 0x30, `"t" props: 03 08 ""`, 0x82},
		{"response topic twice", "5", 0x30, `"t" props: 08 08 "a" 08 "b"`, 0x82},
		{"correlation data twice", "5", 0x30, `"t" props: 08 09 "a" 09 "b"`, 0x82},
		{"[MQTT-2.2.2-2] session expiry", "5", 0x30, `"t" props: 05 11 00000001`, 0x81},
		{"[MQTT-2.2.2-2] reason string", "5", 0x30, `"t" props: 04 1f "r"`, 0x81},
		{"[MQTT-2.2.2-2] property 0", "5", 0x30, `"t" props: 02 00 00`, 0x81},
		{"[MQTT-2.2.2-2] property 65, which is 1 in six bits", "5", 0x30, `"t" props: 02 41 00`, 0x81},
		{"properties beyond the packet", "5", 0x30, `"t" props: 05 01 00`, 0x81},
	})
}

func TestAcknowledgementsThatAreWrong(t *testing.T) {
	for kind, flags := range map[byte]byte{0x40: 0, 0x50: 0, 0x60: 2, 0x70: 0} {
		first := kind | flags
		refuseAll(t, []wrong{
			{"[MQTT-2.1.3-1] flags", "45", first ^ 0x02, `id: 0001`, 0x81},
			{"[MQTT-2.1.3-1] flags", "345", first ^ 0x01, `id: 0001`, 0x81},
			{"no packet identifier", "345", first, `id: 0000`, 0x82},
			{"empty", "345", first, ``, 0x81},
			{"one byte", "345", first, `00`, 0x81},
			{"surplus", "34", first, `id: 0001 00`, 0x81},
			{"a reason of another packet", "5", first, `id: 0001 reason: 8f`, 0x82},
			{"a reason nobody knows", "5", first, `id: 0001 reason: 01`, 0x82},
			{"[MQTT-2.2.2-2] session expiry", "5", first, `id: 0001 reason: 00 props: 05 11 00000001`, 0x81},
			{"[MQTT-2.2.2-2] topic alias", "5", first, `id: 0001 reason: 00 props: 03 23 0001`, 0x81},
			{"reason string twice", "5", first, `id: 0001 reason: 00 props: 08 1f "a" 1f "b"`, 0x82},
			{"properties beyond the packet", "5", first, `id: 0001 reason: 00 props: 04`, 0x81},
			{"surplus behind the properties", "5", first, `id: 0001 reason: 00 props: 00 00`, 0x81},
		})
	}
	refuseAll(t, []wrong{
		{"[MQTT-3.6.2-1] PUBREL, quota exceeded", "5", 0x62, `id: 0001 reason: 97`, 0x82},
		{"[MQTT-3.7.2-1] PUBCOMP, no matching subscribers", "5", 0x70, `id: 0001 reason: 10`, 0x82},
		{"[MQTT-3.4.2-1] PUBACK, identifier not found", "5", 0x40, `id: 0001 reason: 92`, 0x82},
	})
}

func TestSubscribeThatIsWrong(t *testing.T) {
	refuseAll(t, []wrong{
		{"[MQTT-3.8.1-1] flags", "345", 0x80, `id: 0001 00 "a" 00`, 0x81},
		{"[MQTT-3.8.1-1] flags", "45", 0x8a, `id: 0001 00 "a" 00`, 0x81},
		{"[MQTT-2.2.1-3] no packet identifier", "34", 0x82, `id: 0000 "a" 00`, 0x82},
		{"[MQTT-2.2.1-3] no packet identifier", "5", 0x82, `id: 0000 00 "a" 00`, 0x82},
		{"[MQTT-3.8.3-2] no filter", "34", 0x82, `id: 0001`, 0x82},
		{"[MQTT-3.8.3-2] no filter", "5", 0x82, `id: 0001 props: 00`, 0x82},
		{"no options", "34", 0x82, `id: 0001 "a"`, 0x81},
		{"no options", "5", 0x82, `id: 0001 props: 00 "a"`, 0x81},
		{"no options behind the second", "34", 0x82, `id: 0001 "a" 00 "b"`, 0x81},
		{"empty", "345", 0x82, ``, 0x81},
		{"no properties", "5", 0x82, `id: 0001`, 0x81},
		{"[MQTT-3.8.3-4] QoS 3", "34", 0x82, `id: 0001 "a" 03`, 0x81},
		{"[MQTT-3.8.3-4] QoS 3", "5", 0x82, `id: 0001 props: 00 "a" 03`, 0x81},
		{"reserved bits", "34", 0x82, `id: 0001 "a" 04`, 0x81},
		{"[MQTT-3.8.3-5] reserved bits", "5", 0x82, `id: 0001 props: 00 "a" 40`, 0x81},
		{"retain handling 3", "5", 0x82, `id: 0001 props: 00 "a" 30`, 0x82},
		{"[MQTT-3.8.3-4] no local, shared", "5", 0x82, `id: 0001 props: 00 "$share/g/a" 04`, 0x82},
		{"[MQTT-4.7.1-1] # not at the end", "34", 0x82, `id: 0001 "a/#/b" 00`, 0x81},
		{"[MQTT-4.7.1-1] # not alone", "34", 0x82, `id: 0001 "a#" 00`, 0x81},
		{"[MQTT-4.7.1-2] + not alone", "5", 0x82, `id: 0001 props: 00 "a/b+" 00`, 0x81},
		{"[MQTT-4.7.3-1] empty filter", "34", 0x82, `id: 0001 "" 00`, 0x81},
		{"[MQTT-3.8.3-1] filter no UTF-8", "34", 0x82, `id: 0001 0001 ff 00`, 0x81},
		{"[MQTT-4.7.3-2] NUL in the filter", "34", 0x82, `id: 0001 0001 00 00`, 0x81},
		{"[MQTT-4.8.2-1] shared without filter", "5", 0x82, `id: 0001 props: 00 "$share/g" 00`, 0x81},
		{"[MQTT-4.8.2-1] shared without group", "5", 0x82, `id: 0001 props: 00 "$share//a" 00`, 0x81},
		{"[MQTT-4.8.2-1] shared, filter empty", "5", 0x82, `id: 0001 props: 00 "$share/g/" 00`, 0x81},
		{"[MQTT-4.8.2-2] wildcard in the group", "5", 0x82, `id: 0001 props: 00 "$share/+/a" 00`, 0x81},
		{"[MQTT-4.8.2-2] # in the group", "5", 0x82, `id: 0001 props: 00 "$share/#" 00`, 0x81},
		{"too many filters", "34", 0x82, `id: 0001 "a" 00 "b" 00 "c" 00 "d" 00 "e" 00`, 0x97},
		{"too many levels", "34", 0x82, `id: 0001 "a/a/a/a/a/a/a/a/#" 00`, 0x8f},
		{"subscription identifier 0", "5", 0x82, `id: 0001 props: 02 0b 00 "a" 00`, 0x82},
		{"subscription identifier twice", "5", 0x82, `id: 0001 props: 04 0b 01 0b 02 "a" 00`, 0x82},
		{"[MQTT-1.5.5-1] subscription identifier too long", "5", 0x82, `id: 0001 props: 03 0b 8100 "a" 00`, 0x81},
		{"[MQTT-2.2.2-2] reason string", "5", 0x82, `id: 0001 props: 04 1f "r" "a" 00`, 0x81},
		{"[MQTT-2.2.2-2] payload format", "5", 0x82, `id: 0001 props: 02 01 01 "a" 00`, 0x81},
	})
}

func TestUnsubscribeThatIsWrong(t *testing.T) {
	refuseAll(t, []wrong{
		{"[MQTT-3.10.1-1] flags", "345", 0xa0, `id: 0001 00 "a"`, 0x81},
		{"no packet identifier", "34", 0xa2, `id: 0000 "a"`, 0x82},
		{"[MQTT-3.10.3-2] no filter", "34", 0xa2, `id: 0001`, 0x82},
		{"[MQTT-3.10.3-2] no filter", "5", 0xa2, `id: 0001 props: 00`, 0x82},
		{"empty", "345", 0xa2, ``, 0x81},
		{"no properties", "5", 0xa2, `id: 0001`, 0x81},
		{"filter beyond the packet", "34", 0xa2, `id: 0001 0005 'a'`, 0x81},
		{"half a length", "34", 0xa2, `id: 0001 "a" 00`, 0x81},
		{"[MQTT-4.7.1-1] # not at the end", "34", 0xa2, `id: 0001 "#/a"`, 0x81},
		{"too many filters", "34", 0xa2, `id: 0001 "a" "b" "c" "d" "e"`, 0x97},
		{"[MQTT-2.2.2-2] subscription identifier", "5", 0xa2, `id: 0001 props: 02 0b 01 "a"`, 0x81},
	})
}

func TestOthersThatAreWrong(t *testing.T) {
	refuseAll(t, []wrong{
		{"CONNACK", "345", 0x20, `00 00`, 0x82},
		{"SUBACK", "345", 0x90, `0001 00`, 0x82},
		{"UNSUBACK", "345", 0xb0, `0001`, 0x82},
		{"PINGRESP", "345", 0xd0, ``, 0x82},
		{"type 0", "0345", 0x00, ``, 0x82},
		{"AUTH before MQTT 5", "34", 0xf0, ``, 0x82},
		{"[MQTT-2.1.3-1] PINGREQ, flags", "345", 0xc1, ``, 0x81},
		{"PINGREQ with a body", "345", 0xc0, `00`, 0x81},
		{"[MQTT-3.14.1-1] DISCONNECT, flags", "345", 0xe1, ``, 0x81},
		{"DISCONNECT with a body", "34", 0xe0, `00`, 0x81},
		{"[MQTT-3.14.2-1] a reason of servers", "5", 0xe0, `8e`, 0x82},
		{"a reason nobody knows", "5", 0xe0, `01`, 0x82},
		{"[MQTT-2.2.2-2] server reference", "5", 0xe0, `00 props: 04 1c "s"`, 0x81},
		{"[MQTT-2.2.2-2] authentication method", "5", 0xe0, `00 props: 04 15 "s"`, 0x81},
		{"session expiry twice", "5", 0xe0, `00 props: 0a 11 00000001 11 00000001`, 0x82},
		{"DISCONNECT, surplus", "5", 0xe0, `00 props: 00 00`, 0x81},
		{"[MQTT-3.15.1-1] AUTH, flags", "5", 0xf1, `18`, 0x81},
		{"[MQTT-3.15.2-1] AUTH, success is for servers", "5", 0xf0, `00`, 0x82},
		{"[MQTT-2.2.2-2] AUTH, session expiry", "5", 0xf0, `18 props: 05 11 00000001`, 0x81},
	})
}

// TestDisconnectExpiry checks that a session that was to end with the
// connection cannot be prolonged [MQTT-3.14.2.2.2].
func TestDisconnectExpiry(t *testing.T) {
	d := decoderOf(5)
	if p := must(t, d, 0xe0, `04 props: 05 11 00000007`); p.Reason != CodeDisconnectWithWill || !p.HasSessionExpiry || p.SessionExpiry != 7 {
		t.Errorf("%+v", p)
	}
	d.sessionExpiry = 0
	if _, refused := decode(t, d, 0xe0, `00 props: 05 11 00000007`); refused == nil || refused.Code != CodeProtocol {
		t.Errorf("refused %v", refused)
	}
	if p := must(t, d, 0xe0, `00 props: 05 11 00000000`); !p.HasSessionExpiry || p.SessionExpiry != 0 {
		t.Errorf("%+v", p)
	}
}

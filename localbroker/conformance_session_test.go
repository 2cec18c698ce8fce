package localbroker

import "testing"

// TestRulesOfStoredSessions plays what a session keeps for a client that is
// away.
func TestRulesOfStoredSessions(t *testing.T) {
	perform(t, []rule{
		{"messages wait for the client, in order [MQTT-4.5.0-1] [MQTT-4.6.0-1]", "45", `
			A connect keep fresh
			A sub plant/a 2
			A cut
			P connect clean
			P pub plant/a one 1
			P pub plant/a two 2
			P pub plant/a three 1
			A connect keep resumed
			A gets plant/a one 1
			A gets plant/a two 2
			A gets plant/a three 1
			A quiet
			A bye
			A connect keep resumed
			A quiet`},
		{"what was not acknowledged comes again, the same, in order [MQTT-4.4.0-1] [MQTT-3.3.1-1]", "45", `
			A connect keep fresh
			A sub plant/a 2
			P connect clean
			P pub plant/a one 1
			P pub plant/a two 2
			P pub plant/a three 1
			A holds plant/a one 1 $1
			A holds plant/a two 2 $2
			A holds plant/a three 1 $3
			A > 40 $1
			A quiet
			A cut
			A connect keep resumed
			A holds plant/a two 2 d $2
			A gets plant/a three 1 d $3
			A > 50 $2
			A < 62 $2
			A > 70 $2
			A quiet
			A cut
			A connect keep resumed
			A quiet`},
		{"a message at QoS 2 that was received is not sent again, its PUBREL is [MQTT-4.3.3-6] [MQTT-4.3.3-7]", "45", `
			A connect keep fresh
			A sub plant/a 2
			P connect clean
			P pub plant/a one 2
			P pub plant/a two 2
			A holds plant/a one 2 $1
			A holds plant/a two 2 $2
			A > 50 $1
			A < 62 $1
			A > 50 $2
			A < 62 $2
			A cut
			A connect keep resumed
			A < 62 $1
			A < 62 $2
			A > 70 $1
			A > 70 $2
			A quiet
			A cut
			A connect keep resumed
			A quiet`},
		{"PUBREL follow the order of PUBREC [MQTT-4.6.0-4]", "45", `
			A connect keep fresh
			A sub plant/a 2
			P connect clean
			P pub plant/a one 2
			P pub plant/a two 2
			A holds plant/a one 2 $1
			A holds plant/a two 2 $2
			A > 50 $2
			A < 62 $2
			A > 50 $1
			A < 62 $1
			A > 70 $1
			A > 70 $2
			A quiet`},
		{"a clean start forgets what waits [MQTT-3.1.2-4]", "45", `
			A connect keep fresh
			A sub plant/a 1
			A cut
			P connect clean
			P pub plant/a one 1
			A connect clean fresh
			A quiet
			P pub plant/a two 1
			A quiet
			A bye
			A connect keep fresh
			A quiet`},
		{"messages that came before the subscription do not come", "45", `
			P connect clean
			P pub plant/a before 1
			A connect keep fresh
			P pub plant/a before 1
			A sub plant/a 1
			P pub plant/a after 1
			A gets plant/a after 1
			A unsub plant/a
			P pub plant/a between 1
			A sub plant/a 1
			P pub plant/a again 1
			A gets plant/a again 1
			A quiet`},
		{"nor those that others wait for, and that the session has not read yet", "45", `
			A connect keep fresh
			A sub plant/x 1
			B connect keep fresh
			B sub plant/a 1
			B cut
			P connect clean
			P pub plant/x 1 1
			P pub plant/x 2 1
			P pub plant/x 3 1
			P pub plant/x 4 1
			P pub plant/x 5 1
			P pub plant/a before 1
			A holds plant/x 1 1 $1
			A gets plant/x 2 1
			A gets plant/x 3 1
			A gets plant/x 4 1
			A gets plant/x 5 1
			A sub plant/a 1
			P pub plant/a after 1
			A > 40 $1
			A gets plant/a after 1
			B connect keep resumed
			B gets plant/a before 1
			B gets plant/a after 1
			A quiet`},
		{"more than the window waits, in order", "45", `
			A connect keep fresh
			A sub plant/# 1
			A cut
			P connect clean
			P pub plant/a 1 1
			P pub plant/b 2 1
			P pub plant/a 3 1
			P pub plant/b 4 1
			P pub plant/a 5 1
			P pub plant/b 6 1
			P pub plant/a 7 1
			P pub plant/b 8 1
			A connect keep resumed
			A holds plant/a 1 1 $1
			A holds plant/b 2 1 $2
			A holds plant/a 3 1 $3
			A holds plant/b 4 1 $4
			A holds plant/a 5 1 $5
			A quiet
			A > 40 $1
			A gets plant/b 6 1
			A gets plant/a 7 1
			A gets plant/b 8 1
			A quiet`},
		{"overlapping filters: one copy for a session that was away", "45", `
			A connect keep fresh
			A sub plant/+ 2
			A sub plant/a 1
			A cut
			P connect clean
			P pub plant/a x 2
			A connect keep resumed
			A gets plant/a x 2
			A quiet`},
		{"properties and identifiers wait with the message", "5", `
			A connect keep fresh
			A > 82 id: 0001 props: 02 0b 05 "plant/a" 01
			A < 90 *
			A cut
			P connect clean
			P > 32 "plant/a" id: 0001 props: 0b 26 "b" "1" 03 "t" 'x'
			P < 40 *
			A connect keep resumed
			A < 32 "plant/a" $1 props: 0d 26 "b" "1" 03 "t" 0b 05 'x'
			A > 40 $1
			A quiet`},
		{"not the own messages, over a reconnection", "5", `
			A connect keep fresh
			A sub plant/a 5
			A pub plant/a own 1
			A cut
			P connect clean
			P pub plant/a others 1
			A connect keep resumed
			A gets plant/a others 1
			A quiet`},
		{"a will waits like any message, at its QoS [MQTT-3.1.2-8]", "45", `
			W connect keep fresh
			W sub plant/will 2
			W cut
			A open
			A > 10 "MQTT" version: 04 flags: 16 keep: 003c id: "A" topic: "plant/will" payload: "gone"
			A < 20 00 00
			A cut
			P connect clean
			P pub plant/will later 1
			W connect keep resumed
			W gets plant/will gone 2
			W gets plant/will later 1
			W quiet`},
		{"a member of a group that is away gives way to one that is there", "45", `
			A connect keep fresh
			A sub $share/g/plant/a 1
			B connect clean
			B sub $share/g/plant/a 1
			A cut
			P connect clean
			P pub plant/a one 1
			P pub plant/a two 1
			B gets plant/a one 1
			B gets plant/a two 1
			A connect keep resumed
			A quiet
			B quiet`},
		{"the last member of a group, away, gets what came", "45", `
			A connect keep fresh
			A sub $share/g/plant/a 1
			A cut
			P connect clean
			P pub plant/a one 1
			A connect keep resumed
			A gets plant/a one 1
			A quiet`},
	}, true)
}

// TestRulesOverARestart plays what a session keeps while the broker is away.
func TestRulesOverARestart(t *testing.T) {
	perform(t, []rule{
		{"messages, subscriptions and what was not acknowledged [MQTT-4.4.0-1] [MQTT-4.1.0-1]", "45", `
			A connect keep fresh
			A sub plant/a 2
			P connect clean
			P pub plant/a one 1
			P pub plant/a two 2
			P pub plant/a three 2
			A holds plant/a one 1 $1
			A holds plant/a two 2 $2
			A holds plant/a three 2 $3
			A > 50 $3
			A < 62 $3
			restart
			P connect clean
			P pub plant/a four 1
			A connect keep resumed
			A < 62 $3
			A holds plant/a one 1 d $1
			A holds plant/a two 2 d $2
			A gets plant/a four 1
			A > 70 $3
			A > 50 $2
			A < 62 $2
			A > 70 $2
			A > 40 $1
			A done
			restart
			A connect keep resumed
			A quiet`},
		{"a message at QoS 2 that was received is not received again [MQTT-4.3.3-10]", "45", `
			A connect keep fresh
			A sub plant/a 2
			P connect keep fresh
			P > 34 "plant/a" id: 0007 none 'x'
			P < 50 0007
			A gets plant/a x 2
			A done
			restart
			A connect keep resumed
			P connect keep resumed
			P > 3c "plant/a" id: 0007 none 'x'
			P < 50 0007
			P > 62 0007
			P < 70 0007
			A quiet`},
		{"an ended subscription and an ended session", "45", `
			A connect keep fresh
			A sub plant/a 1
			A sub plant/b 1
			A unsub plant/a
			B connect keep fresh
			B sub plant/b 1
			B cut
			B connect clean fresh
			B bye
			restart
			P connect clean
			P pub plant/a x 1
			P pub plant/b y 1
			A connect keep resumed
			A gets plant/b y 1
			A quiet
			B connect keep fresh
			B quiet`},
		{"retained messages, replaced and removed ones too", "45", `
			P connect clean
			P pub plant/a old 1 r
			P pub plant/a new 1 r
			P pub plant/b gone 1 r
			P > 33 "plant/b" id: 0001 none
			P < 40 0001 *
			restart
			A connect clean
			A sub plant/a 0
			A gets plant/a new 0 r
			A sub plant/b 0
			A quiet`},
	}, true)
}

// TestRulesOfSessions plays how sessions begin and end.
func TestRulesOfSessions(t *testing.T) {
	perform(t, []rule{
		{"a session and its subscriptions are there again [MQTT-3.1.2-5] [MQTT-3.2.2-2]", "45", `
			A connect keep fresh
			A sub plant/a 0
			A cut
			A connect keep resumed
			P connect clean
			P pub plant/a x 0
			A gets plant/a x 0`},
		{"a clean start begins anew [MQTT-3.1.2-4] [MQTT-3.2.2-3]", "45", `
			A connect keep fresh
			A sub plant/a 0
			A bye
			A connect clean fresh
			A bye
			A connect keep fresh
			P connect clean
			P pub plant/a x 0
			A quiet`},
		{"a second connection takes the session over [MQTT-3.1.4-3]", "45", `
			A connect keep fresh
			A sub plant/a 0
			A' connect keep resumed
			A closed 8e
			P connect clean
			P pub plant/a x 0
			A' gets plant/a x 0`},
		{"a session that ends with its connection is not taken over", "45", `
			A connect clean fresh
			A sub plant/a 0
			A' connect keep fresh
			A closed 8e
			P connect clean
			P pub plant/a x 0
			A' quiet`},
		{"a session of MQTT 5 ends in its time [MQTT-3.1.2-23]", "5", `
			A connect keep fresh
			A sub plant/a 0
			A cut
			wait 990s
			A connect keep resumed
			A cut
			wait 1001s
			A connect keep fresh`},
		{"DISCONNECT changes the time of the session", "5", `
			A connect keep fresh
			A > e0 reason: 00 props: 05 11 00000005
			A closed
			wait 4s
			A connect keep resumed
			A > e0 reason: 00 props: 05 11 00000000
			A closed
			A connect keep fresh`},
		{"DISCONNECT gives no time to a session that had none [MQTT-3.14.2-2]", "5", `
			A connect clean fresh
			A > e0 reason: 00 props: 05 11 00000005
			A closed 82`},
		{"a client without identifier gets one [MQTT-3.1.3-6] [MQTT-3.2.2-16]", "5", `
			A open
			A > 10 "MQTT" version: 05 flags: 02 keep: 003c props: 00 id: ""
			A < 20 00 00 .. 21 .. .. 27 .. .. .. .. 12 *
			A quiet`},
		{"a client without identifier", "4", `
			A open
			A > 10 "MQTT" version: 04 flags: 02 keep: 003c id: ""
			A < 20 00 00
			A quiet`},
		{"a session without an identifier [MQTT-3.1.3-8]", "4", `
			A open
			A > 10 "MQTT" version: 04 flags: 00 keep: 003c id: ""
			A < 20 00 02
			A closed`},
		{"an unknown version [MQTT-3.1.2-2]", "4", `
			A open
			A > 10 "MQTT" version: 03 flags: 02 keep: 003c id: "A"
			A < 20 00 01
			A closed`},
		{"enhanced authentication [MQTT-4.12.0-1]", "5", `
			A open
			A > 10 "MQTT" version: 05 flags: 02 keep: 003c props: 04 15 "m" id: "A"
			A < 20 00 8c *
			A closed`},
		{"no reasons in words to who wants none [MQTT-3.1.2-29]", "5", `
			A open
			A > 10 "MQTT" version: 05 flags: 02 keep: 003c props: 06 17 00 15 "m" id: "A"
			A < 20 00 8c 00
			A closed`},
		{"a client that takes no CONNACK [MQTT-3.1.2-24]", "5", `
			A open
			A > 10 "MQTT" version: 05 flags: 02 keep: 003c props: 05 27 00000002 id: "A"
			A closed`},
		{"a client that just takes its CONNACK", "5", `
			A open
			A > 10 "MQTT" version: 05 flags: 02 keep: 003c props: 05 27 00000010 id: "A"
			A < 20 00 00 *
			A quiet`},
		{"MQTT 3.1, which marks repeats of more packets", "4", `
			A open
			A > 10 "MQIsdp" version: 03 flags: 02 keep: 003c id: "A"
			A < 20 00 00
			A > 8a id: 0001 "plant/a" 02
			A < 90 0001 02
			B open
			B > 10 "MQIsdp" version: 03 flags: 02 keep: 003c id: "B"
			B < 20 00 00
			B > 34 "plant/a" id: 0007 'x'
			B < 50 0007
			B > 6a id: 0007
			B < 70 0007
			A gets plant/a x 2
			A done
			A > aa id: 0002 "plant/a"
			A < b0 0002
			A bye`},
		{"AUTH that nobody asked for", "5", `
			A connect clean
			A > f0 reason: 19
			A closed 82`},
		{"a second CONNECT [MQTT-3.1.0-2]", "45", `
			A connect clean
			A > 10 "MQTT" version: 04 flags: 02 keep: 003c id: "A"
			A closed`},
		{"another packet than CONNECT [MQTT-3.1.0-1]", "45", `
			A open
			A > c0
			A closed`},
		{"a client that says nothing for one and a half times its keep-alive [MQTT-3.1.2-22]", "45", `
			A open
			A > 10 "MQTT" version: 04 flags: 02 keep: 000a id: "A"
			A < 20 00 00
			wait 14s
			A quiet
			wait 14s
			A quiet
			wait 16s
			A closed`},
		{"a will when the connection is lost [MQTT-3.1.2-8]", "45", `
			W connect clean
			W sub plant/will 1
			A open
			A > 10 "MQTT" version: 04 flags: 2e keep: 003c id: "A" topic: "plant/will" payload: "gone"
			A < 20 00 00
			A cut
			W gets plant/will gone 1
			X connect clean
			X sub plant/will 1
			X gets plant/will gone 1 r`},
		{"no will after DISCONNECT [MQTT-3.1.2-10]", "45", `
			W connect clean
			W sub plant/will 1
			A open
			A > 10 "MQTT" version: 04 flags: 0e keep: 003c id: "A" topic: "plant/will" payload: "gone"
			A < 20 00 00
			A bye
			W quiet`},
		{"a will when the client is silent, and when it breaks the rules", "45", `
			W connect clean
			W sub plant/will 0
			A open
			A > 10 "MQTT" version: 04 flags: 0e keep: 0001 id: "A" topic: "plant/will" payload: "gone"
			A < 20 00 00
			wait 2s
			W gets plant/will gone 0
			B open
			B > 10 "MQTT" version: 04 flags: 0e keep: 003c id: "B" topic: "plant/will" payload: "bad"
			B < 20 00 00
			B > 36 "plant/a" id: 0001 none
			B closed
			W gets plant/will bad 0
			W quiet`},
		{"DISCONNECT with the will", "5", `
			W connect clean
			W sub plant/will 0
			A open
			A > 10 "MQTT" version: 05 flags: 06 keep: 003c props: 00 id: "A" will: 00 topic: "plant/will" payload: "gone"
			A < 20 00 00 *
			A > e0 reason: 04
			A closed
			W gets plant/will gone 0`},
		{"a will waits for its client [MQTT-3.1.3-9]", "5", `
			W connect clean
			W sub plant/will 0
			A open
			A > 10 "MQTT" version: 05 flags: 06 keep: 003c props: 05 11 000003e8 id: "A" will: 05 18 0000000a topic: "plant/will" payload: "gone"
			A < 20 00 00 *
			A cut
			wait 9s
			A connect keep resumed
			wait 20s
			W quiet
			B open
			B > 10 "MQTT" version: 05 flags: 06 keep: 003c props: 05 11 000003e8 id: "B" will: 05 18 0000000a topic: "plant/will" payload: "gone"
			B < 20 00 00 *
			B cut
			wait 9s
			W quiet
			wait 2s
			W gets plant/will gone 0`},
		{"a will waits no longer than its session", "5", `
			W connect clean
			W sub plant/will 0
			A open
			A > 10 "MQTT" version: 05 flags: 06 keep: 003c props: 05 11 00000003 id: "A" will: 05 18 0000000a topic: "plant/will" payload: "one"
			A < 20 00 00 *
			A cut
			wait 4s
			W gets plant/will one 0
			B open
			B > 10 "MQTT" version: 05 flags: 06 keep: 003c props: 00 id: "B" will: 05 18 0000000a topic: "plant/will" payload: "two"
			B < 20 00 00 *
			B cut
			W gets plant/will two 0`},
		{"a will goes with its properties, and those of a will are not the message's", "5", `
			W connect clean
			W sub plant/will 0
			A open
			A > 10 "MQTT" version: 05 flags: 06 keep: 003c props: 00 id: "A" will: 0e 26 "k" "v" 02 00000014 01 01 topic: "plant/will" payload: "gone"
			A < 20 00 00 *
			A cut
			W < 30 "plant/will" props: 0e 26 "k" "v" 01 01 02 00000014 'gone'`},
	}, false)
}

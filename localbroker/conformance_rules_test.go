package localbroker

import "testing"

// TestRulesOfDelivery plays the rules of QoS, order and subscriptions.
func TestRulesOfDelivery(t *testing.T) {
	perform(t, []rule{
		{"order and QoS, lower of both [MQTT-4.6.0-5] [MQTT-3.8.4-8]", "45", `
			A0 connect clean
			A0 sub plant/a 0
			A1 connect clean
			A1 sub plant/a 1
			A2 connect clean
			A2 sub plant/a 2
			P connect clean
			P pub plant/a one 0
			P pub plant/a two 1
			P pub plant/a three 2
			P pub plant/a four 1
			A0 gets plant/a one 0
			A0 gets plant/a two 0
			A0 gets plant/a three 0
			A0 gets plant/a four 0
			A1 gets plant/a one 0
			A1 gets plant/a two 1
			A1 gets plant/a three 1
			A1 gets plant/a four 1
			A2 gets plant/a one 0
			A2 gets plant/a two 1
			A2 gets plant/a three 2
			A2 gets plant/a four 1
			A2 quiet`},
		{"a message at QoS 2 comes once, however often it is sent [MQTT-4.3.3-10] [MQTT-4.3.3-12]", "45", `
			A connect clean
			A sub plant/a 2
			P connect clean
			P > 34 "plant/a" id: 0007 none 'x'
			P < 50 0007
			P > 3c "plant/a" id: 0007 none 'x'
			P < 50 0007
			P > 62 0007
			P < 70 0007
			A gets plant/a x 2
			P > 34 "plant/a" id: 0007 none 'y'
			P < 50 0007
			P > 62 0007
			P < 70 0007
			A gets plant/a y 2
			A quiet`},
		{"a message at QoS 2 is completed on another connection", "45", `
			A connect clean
			A sub plant/a 2
			P connect keep fresh
			P > 34 "plant/a" id: 0007 none 'x'
			P < 50 0007
			P cut
			P connect keep resumed
			P > 3c "plant/a" id: 0007 none 'x'
			P < 50 0007
			P > 62 0007
			P < 70 0007
			A gets plant/a x 2
			A quiet`},
		{"PUBREL of an unknown message is answered [MQTT-4.3.3-11]", "45", `
			P connect clean
			P > 62 0007
			P < 70 0007 *`},
		{"an unknown acknowledgement does no harm", "45", `
			A connect clean
			A > 40 0007
			A > 70 0007
			A quiet`},
		{"the repeat flag is not passed on [MQTT-3.3.1-3]", "45", `
			A connect clean
			A sub plant/a 1
			P connect clean
			P > 3a "plant/a" id: 0007 none 'x'
			P < 40 0007 *
			A gets plant/a x 1`},
		{"another acknowledgement than that of the message ends the connection", "45", `
			A connect clean
			A sub plant/a 1
			P connect clean
			P pub plant/a x 1
			A holds plant/a x 1 $1
			A > 50 $1
			A closed 82`},
		{"PUBACK for a message at QoS 2 ends the connection", "45", `
			A connect clean
			A sub plant/a 2
			P connect clean
			P pub plant/a x 2
			A holds plant/a x 2 $1
			A > 40 $1
			A closed 82`},
		{"an identifier is used again only when it is free [MQTT-2.2.1-4]", "45", `
			A connect clean
			A sub plant/a 1
			P connect clean
			P pub plant/a one 1
			P pub plant/a two 1
			A holds plant/a one 1 $1
			A holds plant/a two 1 $2
			A > 40 $2
			P pub plant/a three 1
			A gets plant/a three 1
			A > 40 $1
			A quiet`},
		{"overlapping filters: one copy, the highest QoS [MQTT-3.3.4-2]", "45", `
			A connect clean
			A sub plant/a 0
			A sub plant/+ 2
			A sub plant/# 1
			P connect clean
			P pub plant/a x 2
			A gets plant/a x 2
			A quiet`},
		{"no more than the window [MQTT-3.3.4-9], and QoS 0 goes past it", "45", `
			A connect clean
			A sub plant/a 1
			P connect clean
			P pub plant/a m1 1
			P pub plant/a m2 1
			P pub plant/a m3 1
			P pub plant/a m4 1
			P pub plant/a m5 1
			P pub plant/a m6 1
			P pub plant/a m7 0
			A holds plant/a m1 1 $1
			A holds plant/a m2 1 $2
			A holds plant/a m3 1 $3
			A holds plant/a m4 1 $4
			A holds plant/a m5 1 $5
			A holds plant/a m7 0
			A quiet
			A > 40 $1
			A holds plant/a m6 1 $6
			A quiet`},
		{"wildcards [MQTT-4.7.1-2] [MQTT-4.7.1-3]", "45", `
			A connect clean
			A sub plant/+/c 0
			B connect clean
			B sub plant/a/# 0
			P connect clean
			P pub plant/a/b 1 0
			P pub plant/a/c 2 0
			P pub plant/a 3 0
			P pub plant/b/c 4 0
			P pub plant//c 5 0
			A gets plant/a/c 2 0
			A gets plant/b/c 4 0
			A gets plant//c 5 0
			A quiet
			B gets plant/a/b 1 0
			B gets plant/a/c 2 0
			B gets plant/a 3 0
			B quiet`},
		{"SUBACK has a code for each filter, in order [MQTT-3.8.4-6]", "4", `
			A connect clean
			A > 82 id: 0009 "plant/a" 02 "forbidden/a" 01 "plant/b" 00
			A < 90 id: 0009 02 80 00`},
		{"SUBACK has a code for each filter, in order [MQTT-3.8.4-6]", "5", `
			A connect clean
			A > 82 id: 0009 props: 00 "plant/a" 02 "forbidden/a" 01 "plant/b" 00
			A < 90 id: 0009 props: 00 02 80 00`},
		{"UNSUBSCRIBE ends exactly the filters it names [MQTT-3.10.4-1] [MQTT-3.10.4-2]", "45", `
			A connect clean
			A sub plant/a 0
			A sub plant/+ 0
			A unsub plant/a
			A unsub plant/a 11
			A unsub plant/# 11
			P connect clean
			P pub plant/a x 0
			A gets plant/a x 0
			A unsub plant/+
			P pub plant/a y 0
			A quiet`},
		{"UNSUBACK has a code for each filter [MQTT-3.11.3-2]", "5", `
			A connect clean
			A sub plant/a 0
			A > a2 id: 0009 props: 00 "plant/b" "plant/a"
			A < b0 id: 0009 props: 00 11 00`},
		{"a message under way is completed after UNSUBSCRIBE [MQTT-3.10.4-3]", "45", `
			A connect clean
			A sub plant/a 2
			P connect clean
			P pub plant/a x 2
			A holds plant/a x 2 $1
			A unsub plant/a
			A > 50 $1
			A < 62 $1
			A > 70 $1
			A quiet`},
		{"the same filter again takes the place of the old [MQTT-3.8.4-3]", "45", `
			A connect clean
			A sub plant/a 2
			A sub plant/a 0
			P connect clean
			P pub plant/a x 2
			A gets plant/a x 0
			A quiet`},
		{"not the own messages [MQTT-3.8.3-3]", "5", `
			A connect clean
			A sub plant/a 6
			B connect clean
			B sub plant/a 2
			A pub plant/a own 1
			A quiet
			B gets plant/a own 1
			C connect clean
			C pub plant/a others 1
			A gets plant/a others 1
			B gets plant/a others 1`},
		{"the own messages if one of two filters wants them", "5", `
			A connect clean
			A sub plant/a 4
			A sub plant/+ 0
			A pub plant/a own 0
			A gets plant/a own 0
			A quiet`},
		{"the own messages where nothing else is said", "45", `
			A connect clean
			A sub plant/a 0
			A pub plant/a own 0
			A gets plant/a own 0`},
		{"subscription identifiers of all that match [MQTT-3.3.4-3] [MQTT-3.3.4-5]", "5", `
			A connect clean
			A > 82 id: 0001 props: 02 0b 05 "plant/a" 00
			A < 90 *
			A > 82 id: 0002 props: 03 0b 8101 "plant/+" 00
			A < 90 *
			A > 82 id: 0003 props: 00 "plant/#" 00
			A < 90 *
			P connect clean
			P pub plant/a x 0
			A < 30 "plant/a" props: 05 0b 05 0b 8101 'x'`},
		{"one member of a group gets it [MQTT-4.8.2-4], others as well", "45", `
			A connect clean
			A sub $share/g/plant/a 1
			B connect clean
			B sub plant/a 1
			P connect clean
			P pub plant/a one 1
			P pub plant/a two 1
			A gets plant/a one 1
			A gets plant/a two 1
			B gets plant/a one 1
			B gets plant/a two 1
			A' connect clean
			A closed 8e
			A' unsub $share/g/plant/a 11
			P pub plant/a three 1
			A' quiet
			B gets plant/a three 1`},
		{"no retained messages for a group", "45", `
			P connect clean
			P pub plant/a x 1 r
			A connect clean
			A sub $share/g/plant/a 1
			A quiet`},
	}, false)
}

// TestRulesOfMQTT5Messages plays the rules of the properties of messages.
func TestRulesOfMQTT5Messages(t *testing.T) {
	perform(t, []rule{
		{"properties come as they were sent, in order [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-18] [MQTT-3.3.2-20]", "5", `
			A connect clean
			A sub plant/a 0
			P connect clean
			P > 30 "plant/a" props: 24 26 "b" "1" 01 01 26 "a" "2" 08 "r" 26 "b" "3" 09 0002 00ff 03 "t" 'x'
			A < 30 "plant/a" props: 24 26 "b" "1" 01 01 26 "a" "2" 08 "r" 26 "b" "3" 09 0002 00ff 03 "t" 'x'`},
		{"topic aliases are those of one connection [MQTT-3.3.2-10]", "5", `
			A connect clean
			A sub plant/# 1
			P connect clean
			P > 30 "plant/a" props: 03 23 0001 'one'
			P > 30 "" props: 03 23 0001 'two'
			P > 32 "plant/b" id: 0001 props: 03 23 0001 'three'
			P < 40 *
			P > 30 "" props: 03 23 0001 'four'
			A gets plant/a one 0
			A gets plant/a two 0
			A gets plant/b three 1
			A gets plant/b four 0
			P cut
			P connect clean
			P > 30 "" props: 03 23 0001 'five'
			P closed 82`},
		{"an alias above the maximum [MQTT-3.3.2-9]", "5", `
			P connect clean
			P > 30 "plant/a" props: 03 23 0004 'x'
			P closed 94`},
		{"aliases towards the client, as many as it takes [MQTT-3.1.2-26]", "5", `
			A open
			A > 10 "MQTT" version: 05 flags: 02 keep: 003c props: 03 22 0001 id: "A"
			A < 20 00 00 *
			A sub plant/# 0
			P connect clean
			P pub plant/a one 0
			P pub plant/a two 0
			P pub plant/b three 0
			A < 30 "plant/a" props: 03 23 0001 'one'
			A < 30 "" props: 03 23 0001 'two'
			A < 30 "plant/b" *`},
		{"no packet larger than the client takes [MQTT-3.1.2-24] [MQTT-3.1.2-25]", "5", `
			A open
			A > 10 "MQTT" version: 05 flags: 02 keep: 003c props: 05 27 0000001e id: "A"
			A < 20 00 00 *
			A sub plant/a 1
			P connect clean
			P pub plant/a short 1
			P pub plant/a this-one-is-too-long-for-the-client 1
			P pub plant/a short 1
			A gets plant/a short 1
			A gets plant/a short 1
			A quiet`},
		{"no more at a time than the client takes [MQTT-3.3.4-9]", "5", `
			A open
			A > 10 "MQTT" version: 05 flags: 02 keep: 003c props: 03 21 0002 id: "A"
			A < 20 00 00 *
			A sub plant/a 2
			P connect clean
			P pub plant/a one 1
			P pub plant/a two 2
			P pub plant/a three 1
			A holds plant/a one 1 $1
			A holds plant/a two 2 $2
			A quiet
			A > 50 $2
			A < 62 $2
			A quiet
			A > 70 $2
			A holds plant/a three 1 $3
			A quiet`},
		{"a refused message at QoS 2 frees the window [MQTT-4.9.0-2]", "5", `
			A open
			A > 10 "MQTT" version: 05 flags: 02 keep: 003c props: 03 21 0001 id: "A"
			A < 20 00 00 *
			A sub plant/a 2
			P connect clean
			P pub plant/a one 2
			P pub plant/a two 1
			A holds plant/a one 2 $1
			A > 50 $1 80
			A gets plant/a two 1
			A quiet`},
		{"a message expires while it is retained, its interval shrinks [MQTT-3.3.2-5] [MQTT-3.3.2-6]", "5", `
			P connect clean
			P > 31 "plant/a" props: 05 02 0000000a 'x'
			wait 4s
			A connect clean
			A sub plant/a 0
			A < 31 "plant/a" props: 05 02 00000006 'x'
			wait 6s
			B connect clean
			B sub plant/a 0
			B quiet`},
	}, false)
}

// TestRulesOfRetainedMessages plays the rules of retained messages.
func TestRulesOfRetainedMessages(t *testing.T) {
	perform(t, []rule{
		{"kept, replaced and removed [MQTT-3.3.1-5] [MQTT-3.3.1-6] [MQTT-3.3.1-7] [MQTT-3.3.1-8]", "45", `
			P connect clean
			P pub plant/a one 1 r
			P pub plant/a two 2 r
			P pub plant/a live 1
			A connect clean
			A sub plant/a 2
			A gets plant/a two 2 r
			A quiet`},
		{"an empty one removes it, and is not kept itself", "4", `
			P connect clean
			P pub plant/a one 1 r
			A connect clean
			A sub plant/a 0
			A gets plant/a one 0 r
			P > 31 "plant/a"
			A < 30 "plant/a"
			B connect clean
			B sub plant/a 0
			B quiet`},
		{"the flag is for new subscriptions only [MQTT-3.3.1-12]", "45", `
			A connect clean
			A sub plant/a 0
			P connect clean
			P pub plant/a x 0 r
			A gets plant/a x 0
			A sub plant/a 0
			A gets plant/a x 0 r`},
		{"the flag as published, where it was asked for [MQTT-3.3.1-13]", "5", `
			A connect clean
			A sub plant/a 8
			P connect clean
			P pub plant/a x 0 r
			P pub plant/a y 0
			A gets plant/a x 0 r
			A gets plant/a y 0`},
		{"a message is older than the subscription that follows it", "5", `
			A connect clean
			A > 31 "plant/a" none 'one'
			A > 31 "plant/a" none 'two'
			A > 31 "plant/a" none 'three'
			A sub plant/a 0x20
			A quiet
			A > 30 "plant/a" none 'four'
			A > a2 id: 0009 props: 00 "plant/a"
			A gets plant/a four 0
			A < b0 0009 props: 00 00
			A quiet`},
		{"retain handling [MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11]", "5", `
			P connect clean
			P pub plant/a x 1 r
			A connect clean
			A sub plant/a 0x21
			A quiet
			A sub plant/a 0x01
			A gets plant/a x 1 r
			A sub plant/a 0x01
			A gets plant/a x 1 r
			A sub plant/a 0x11
			A quiet
			B connect clean
			B sub plant/a 0x11
			B gets plant/a x 1 r
			B quiet`},
		{"a new connection without a new subscription gets none", "45", `
			P connect clean
			P pub plant/a x 1 r
			A connect keep fresh
			A sub plant/a 1
			A gets plant/a x 1 r
			A cut
			A connect keep resumed
			A quiet`},
		{"those of the topics that a filter covers", "45", `
			P connect clean
			P pub plant/a/b x 1 r
			P pub plant/c/b y 1 r
			P pub plant/c z 1 r
			A connect clean
			A sub plant/a/+ 0
			A gets plant/a/b x 0 r
			A sub plant/c 1
			A gets plant/c z 1 r
			A quiet`},
	}, false)
}

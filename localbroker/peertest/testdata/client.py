"""Uses a broker through paho-mqtt: client.py HOST PORT WEBPORT. Fails loudly."""
import queue
import sys
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

HOST, PORT, WEB = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
PATIENCE = 20  # seconds
AWAY = 50


class Client:
    """A session that waits for what it asks for."""

    def __init__(self, version, name, transport="tcp", stored=False):
        self.version, self.stored, self.transport = version, stored, transport
        clean = {} if version == mqtt.MQTTv5 else {"clean_session": not stored}
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=name, protocol=version,
                                  transport=transport, **clean)
        self.messages, self.granted, self.connected = queue.Queue(), queue.Queue(), queue.Queue()
        self.client.on_message = lambda c, u, m: self.messages.put((m.topic, m.payload.decode(), m.qos, m.retain))
        self.client.on_subscribe = lambda c, u, mid, codes, props: self.granted.put([x.value for x in codes])
        self.client.on_connect = lambda c, u, flags, code, props: self.connected.put((code.value, flags.session_present))

    def connect(self, present=False):
        extra = {}
        if self.version == mqtt.MQTTv5:
            extra["clean_start"] = not self.stored
            extra["properties"] = Properties(PacketTypes.CONNECT)
            extra["properties"].SessionExpiryInterval = 3600 if self.stored else 0
        self.client.connect(HOST, WEB if self.transport == "websockets" else PORT, 30, **extra)
        self.client.loop_start()
        code, was = self.connected.get(timeout=PATIENCE)
        present = present and self.version != mqtt.MQTTv31  # which cannot tell
        assert (code, was) == (0, present), f"connected: {code}, session present {was}, wanted {present}"
        return self

    def subscribe(self, topic, qos):
        self.client.subscribe(topic, qos)
        got = self.granted.get(timeout=PATIENCE)
        assert got == [qos], f"granted {got}, asked for {qos}"
        return self

    def publish(self, topic, payload, qos, retain=False):
        self.client.publish(topic, payload, qos, retain).wait_for_publish(PATIENCE)

    def expect(self, *want):
        for w in want:
            got = self.messages.get(timeout=PATIENCE)
            assert got == w, f"got {got}, wanted {w}"

    def leave(self):
        gone = threading.Event()
        self.client.on_disconnect = lambda *args: gone.set()
        self.client.disconnect()
        assert gone.wait(PATIENCE), "no end"
        self.client.loop_stop()


def use(version, transport):
    for qos in (0, 1, 2):
        topic = f"TopicA/python/{version}/{transport}/{qos}"
        publisher = Client(version, "publisher", transport).connect()
        live = Client(version, "live", transport).connect().subscribe(topic, 2)
        publisher.publish(topic, "live", qos)
        publisher.publish(topic, "kept", qos, retain=True)
        live.expect((topic, "live", qos, False), (topic, "kept", qos, False))
        late = Client(version, "late", transport).connect().subscribe(topic, 2)
        late.expect((topic, "kept", qos, True))
        publisher.publish(topic, "", qos, retain=True)
        if qos > 0:
            Client(version, "away", transport).connect().leave()  # no session is left
            away = Client(version, "away", transport, stored=True).connect().subscribe(topic, qos)
            away.leave()
            for i in range(AWAY):
                publisher.publish(topic, str(i), qos)
            back = Client(version, "away", transport, stored=True).connect(present=True)
            back.expect(*[(topic, str(i), qos, False) for i in range(AWAY)])
            back.leave()
        for client in (publisher, live, late):
            client.leave()


for v in (mqtt.MQTTv31, mqtt.MQTTv311, mqtt.MQTTv5):
    for t in ("tcp", "websockets"):
        use(v, t)
        print("ok", v, t)

package standin

import (
	"testing"

	paho "github.com/eclipse/paho.mqtt.golang"

	"sluice/mapping"
)

func TestEveryAcknowledgedMessageIsRecordedBeforeItsAcknowledgement(t *testing.T) {
	recorded := make(chan mapping.Message, 100)
	broker, err := Start(func(client string, m mapping.Message) {
		if client != "tester" {
			t.Errorf("client %q, want tester", client)
		}
		recorded <- m
	})
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	client := paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + broker.Addr()).SetClientID("tester"))
	if token := client.Connect(); token.Wait() && token.Error() != nil {
		t.Fatal(token.Error())
	}
	defer client.Disconnect(0)
	for qos := range byte(3) {
		token := client.Publish("a/b", qos, true, "payload")
		token.Wait()
		if token.Error() != nil {
			t.Fatal(token.Error())
		}
		if qos > 0 && len(recorded) == 0 {
			t.Errorf("QoS %d was acknowledged before it was recorded", qos)
		}
		m := <-recorded
		if m.Topic != "a/b" || string(m.Payload) != "payload" || m.QoS != qos || !m.Retain {
			t.Errorf("QoS %d: recorded %+v", qos, m)
		}
	}
}

package main

import (
	"fmt"
	"strings"
	"time"

	"sluice/dashboard"
	"sluice/localbroker"
	"sluice/localbroker/wire"
)

// brokerHealth: a listener that is not open and a disk that refuses are
// illnesses; what the broker had to drop or refuse is not.
func brokerHealth(s *localbroker.Stats) (reason string, ok bool) {
	for _, l := range s.Listeners {
		if !l.Listening {
			return fmt.Sprintf("not listening on %s: %s", l.Address, l.Error), false
		}
	}
	if s.Storage.Failing {
		return "the disk refuses what sessions have to keep: " + s.Storage.LastError, false
	}
	return "", true
}

// brokerAttention tells what keeps messages from the clients of the broker. The
// counts are since its start.
func brokerAttention(s *localbroker.Stats) []string {
	var all []string
	say := func(format string, args ...any) { all = append(all, "local broker: "+fmt.Sprintf(format, args...)) }
	if reason, _ := brokerHealth(s); reason != "" {
		if strings.Contains(reason, "address already in use") {
			reason += "; does another broker, such as Mosquitto, run here? Stop it, or set broker: { listen: [\"127.0.0.1:1884\"] }"
		}
		say("%s", reason)
	}
	if s.Storage.Damage != "" {
		say("its stored sessions were damaged: %s", s.Storage.Damage)
	}
	if s.Storage.BackupError != "" {
		say("the second copy of its sessions is not kept: %s", s.Storage.BackupError)
	}
	if n := s.Storage.QueuedDropped; n > 0 {
		say("%d messages were dropped before a session could get them: let its client come back sooner, or raise broker.storage.max_size", n)
	}
	if n := s.Storage.QueuedRefused; n > 0 {
		say("%d messages for stored sessions were refused by the disk: their senders were told and have them still, values of points are lost to these sessions; free room on it", n)
	}
	if s.LANLost > 0 {
		say("%d messages of LAN clients were lost as the log refused them", s.LANLost)
	}
	for _, limit := range []struct {
		cause       wire.Cause
		what, limit string
	}{
		{wire.RefusedClients, "connections were refused", "clients"},
		{wire.RefusedAddress, "connections were refused", "per_address"},
		{wire.RefusedSessions, "clients were refused", "sessions"},
		{wire.RefusedUserSessions, "clients were refused", "sessions_per_user"},
		{wire.RefusedRetained, "retained messages were not kept", "retained or limits.retained_size"},
	} {
		if n := s.Refused[limit.cause]; n > 0 {
			say("%d %s: broker.limits.%s is reached", n, limit.what, limit.limit)
		}
	}
	if r := s.LastRefused; r != nil {
		say("%s", refusedSentence(r))
	}
	if s.Panics > 0 {
		say("%d faults of this program were caught, and may have ended connections; its log shows where, please report it", s.Panics)
	}
	return all
}

// refusedSentence tells of a client that was refused, and what lets it in.
func refusedSentence(r *localbroker.RefusedClient) string {
	who := fmt.Sprintf("client %q at %s", r.Client, r.Remote)
	if r.Client == "" {
		who = "a client at " + r.Remote
	}
	if r.User != "" {
		who += fmt.Sprintf(", user %s,", r.User)
	}
	what := fmt.Sprintf("%s was refused on %s at %s: %s", who, r.Listener, r.At.Format(time.RFC3339), r.Why)
	switch {
	case r.Topic != "":
		return fmt.Sprintf("%s: %s. Rights stand in the users file, those of anonymous clients under broker.publish and broker.read; the topics of points belong to the gateway", what, r.Topic)
	case r.Cause == wire.RefusedAuth:
		return what + ". sluice users list shows the users, sluice users passwd NAME sets a password"
	case r.Cause == wire.RefusedLoginRate:
		return what + ". Mend its password, and wait a minute"
	case r.Cause == wire.RefusedCertificate:
		return what + ". sluice certs list shows who is let in"
	}
	return what
}

// brokerMetrics adds the figures of the broker.
func brokerMetrics(m *dashboard.Metrics, s *localbroker.Stats) {
	m.Flag("sluice_broker_running", "Whether the local broker runs.", s.Running)
	for _, l := range s.Listeners {
		m.Flag("sluice_broker_listening", "Whether a listener is open.", l.Listening, label("address", l.Address))
	}
	m.Gauge("sluice_broker_clients", "Connected clients.", float64(s.Clients))
	m.Gauge("sluice_broker_sessions", "Sessions, connected or not.", float64(s.Sessions))
	m.Gauge("sluice_broker_sessions_stored", "Sessions that outlive a restart.", float64(s.Stored))
	m.Counter("sluice_broker_sessions_expired_total", "Sessions that came to the end of their time.", float64(s.Expired))
	m.Counter("sluice_broker_connects_total", "Connections accepted.", float64(s.Connects))
	m.Gauge("sluice_broker_subscriptions", "Subscriptions of all sessions.", float64(s.Subscriptions))
	m.Gauge("sluice_broker_retained", "Topics with a retained message.", float64(s.Retained))
	m.Gauge("sluice_broker_queued", "Messages that wait for a client.", float64(s.Queued))
	m.Gauge("sluice_broker_in_flight", "Messages sent and not yet acknowledged.", float64(s.InFlight))
	m.Counter("sluice_broker_received_total", "Messages of clients.", float64(s.Received))
	m.Counter("sluice_broker_sent_total", "Messages handed to connections.", float64(s.Sent))
	m.Counter("sluice_broker_received_bytes_total", "Bytes of MQTT packets received.", float64(s.BytesIn))
	m.Counter("sluice_broker_sent_bytes_total", "Bytes of MQTT packets sent.", float64(s.BytesOut))
	m.Counter("sluice_broker_dropped_total", "Messages that a slow subscriber did not get.", float64(s.Dropped))
	m.Counter("sluice_broker_lan_appended_total", "Messages of LAN clients the log has taken.", float64(s.LANAppended))
	m.Counter("sluice_broker_lan_lost_total", "Messages of LAN clients the log has refused.", float64(s.LANLost))
	for cause, count := range s.Refused {
		m.Counter("sluice_broker_refused_total", "Connections and packets refused, by cause.", float64(count), label("cause", string(cause)))
	}
	m.Counter("sluice_broker_panics_total", "Faults of the program that were caught.", float64(s.Panics))
	m.Gauge("sluice_broker_traces", "Message logs that are on.", float64(s.Traces))
	storage := &s.Storage
	for _, use := range []struct {
		of    string
		bytes int64
	}{{"retained", storage.RetainedBytes}, {"queued", storage.QueuedBytes}, {"sessions", storage.SessionBytes}} {
		m.Gauge("sluice_broker_storage_bytes", "Bytes stored, by what they are.", float64(use.bytes), label("of", use.of))
	}
	m.Gauge("sluice_broker_queue_max_bytes", "Bound of the stored messages that wait for clients.", float64(storage.QueuedMax))
	m.Counter("sluice_broker_queued_dropped_total", "Stored messages that some session lost at that bound.", float64(storage.QueuedDropped))
	m.Flag("sluice_broker_storage_failing", "Whether the disk refuses what sessions have to keep.", storage.Failing)
}

// clientMetrics adds the figures of the sessions one by one.
func clientMetrics(m *dashboard.Metrics, sessions []localbroker.ClientStats) {
	for i := range sessions {
		s := &sessions[i]
		client := label("client", s.ID)
		m.Flag("sluice_broker_client_connected", "Whether the client is connected.", s.Connected, client)
		m.Gauge("sluice_broker_client_subscriptions", "Subscriptions of the client.", float64(s.Subscriptions), client)
		m.Gauge("sluice_broker_client_queued", "Messages that wait for the client.", float64(s.Queued), client)
		m.Gauge("sluice_broker_client_behind", "Records of the session log that the session has not passed.", float64(s.Behind), client)
		m.Gauge("sluice_broker_client_in_flight", "Messages sent to the client and not yet acknowledged.", float64(s.InFlight), client)
		m.Counter("sluice_broker_client_received_total", "Messages from the client since it connected.", float64(s.Received), client)
		m.Counter("sluice_broker_client_sent_total", "Messages to the client since it connected.", float64(s.Sent), client)
		m.Counter("sluice_broker_client_dropped_total", "Messages that the client was too slow for.", float64(s.Dropped), client)
	}
}

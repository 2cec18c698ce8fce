package main

import (
	"sluice/dashboard"
	"sluice/localbroker/spool"
)

// label is short for a metric's label.
func label(name, value string) dashboard.Label { return dashboard.Label{Name: name, Value: value} }

// Metrics adds the figures of every stage, in the order of the data. Times are
// in seconds and sizes in bytes, as Prometheus has them.
func (g *gateway) Metrics(m *dashboard.Metrics) {
	s := g.snapshot()
	m.Gauge("sluice_build_info", "Always 1; the labels say which program runs.", 1,
		label("version", s.Build.Version), label("go", s.Build.Go))
	m.Gauge("sluice_start_time_seconds", "When the process started, since 1970.", float64(s.Started.Unix()))
	if s.Restarted != nil {
		m.Gauge("sluice_restarted_time_seconds", "When a Sparkplug host last had the program started anew, since 1970.", float64(s.Restarted.At.Unix()))
	}
	m.Flag("sluice_clock_trusted", "Whether the system clock can be believed.", s.Clock.Trusted)
	m.Gauge("sluice_devices_disabled", "Devices that errors in the site file keep from running.", float64(len(s.Disabled)))
	if s.Reload != nil {
		m.Flag("sluice_reload_ok", "Whether the last reload of the site file was taken.", s.Reload.OK)
	}
	for i := range s.Buses {
		s.Buses[i].metrics(m)
	}
	for i := range s.MQTT {
		mqttMetrics(m, &s.MQTT[i])
	}
	for code, count := range s.Commands.Results {
		m.Counter("sluice_commands_total", "Commands to write, by what became of them.", float64(count), label("code", string(code)))
	}
	spoolMetrics(m, &s.Spool)
	brokerMetrics(m, &s.Broker)
	clientMetrics(m, g.clients())
	for i := range s.Upstreams {
		s.Upstreams[i].metrics(m)
	}
}

func (s *busStatus) metrics(m *dashboard.Metrics) {
	bus := label("bus", s.Name)
	m.Flag("sluice_bus_connected", "Whether the port or connection is open.", s.Connected, bus)
	m.Gauge("sluice_bus_load_ratio", "Share of the last minute or so in which the line was busy.", s.Load, bus)
	m.Gauge("sluice_bus_dead_ratio", "Share of time spent on devices that did not answer.", s.DeadShare, bus)
	m.Counter("sluice_bus_not_taken_total", "Polls whose samples the log did not take.", float64(s.NotTaken), bus)
	m.Counter("sluice_bus_requests_total", "Modbus requests sent.", float64(s.Link.Requests), bus)
	m.Counter("sluice_bus_replies_total", "Valid replies, exceptions not included.", float64(s.Link.Replies), bus)
	for _, e := range []struct {
		kind  string
		count uint64
	}{
		{"timeout", s.Link.Timeouts}, {"frame", s.Link.FrameErrors}, {"exception", s.Link.Exceptions},
		{"late", s.Link.LateReplies}, {"connect", s.Link.ConnectFailures},
	} {
		m.Counter("sluice_bus_errors_total", "Requests without a usable reply, by kind.", float64(e.count), bus, label("kind", e.kind))
	}
	m.Counter("sluice_bus_sent_bytes_total", "Bytes sent, with frames.", float64(s.Link.BytesSent), bus)
	m.Counter("sluice_bus_received_bytes_total", "Bytes received, with frames.", float64(s.Link.BytesReceived), bus)
	for i := range s.Devices {
		d := &s.Devices[i]
		device := label("device", d.Name)
		m.Flag("sluice_device_online", "Whether the device answers.", d.State == "online" || d.State == "trial", bus, device)
		m.Counter("sluice_device_requests_total", "Requests to the device.", float64(d.Requests), bus, device)
		m.Counter("sluice_device_failed_total", "Requests to the device without a usable reply.", float64(d.Failed), bus, device)
		m.Counter("sluice_device_writes_total", "Values sent to the device, whatever became of them.", float64(d.Writes), bus, device)
		m.Gauge("sluice_device_response_seconds", "Smoothed time of a request with its reply.", d.Response.Seconds(), bus, device)
		m.Gauge("sluice_device_refused_points", "Points that the device refuses to read.", float64(len(d.Refused)), bus, device)
		var polls, missed uint64
		for _, group := range d.Groups {
			polls += group.Polls
			missed += group.Missed
		}
		m.Counter("sluice_device_polls_total", "Polls made.", float64(polls), bus, device)
		m.Counter("sluice_device_missed_total", "Polls not made as the bus could not keep up.", float64(missed), bus, device)
	}
}

func spoolMetrics(m *dashboard.Metrics, s *spool.Stats) {
	m.Counter("sluice_spool_records_total", "Records taken by the log.", float64(s.Records))
	m.Counter("sluice_spool_written_bytes_total", "Bytes handed to the file system.", float64(s.Written))
	m.Counter("sluice_spool_syncs_total", "Times the disk was forced.", float64(s.Syncs))
	m.Gauge("sluice_spool_used_bytes", "Size of the log.", float64(s.Used))
	m.Gauge("sluice_spool_max_bytes", "Bound of the log.", float64(s.Max))
	m.Gauge("sluice_spool_time_left_seconds", "Time until the log is full if nothing is acknowledged; 0 before it is known.", s.TimeLeft.Seconds())
	for cause, count := range s.Dropped {
		m.Counter("sluice_spool_dropped_total", "Records that some upstream did not get, by cause.", float64(count), label("cause", cause))
	}
	m.Counter("sluice_spool_drops_untold_total", "Dropped records that some upstream may not be told of.", float64(s.DropsUntold))
	m.Counter("sluice_spool_damages_total", "Damaged places that were stepped over.", float64(s.Damages))
	m.Counter("sluice_spool_disk_errors_total", "Times the disk refused.", float64(s.DiskErrors))
	m.Flag("sluice_spool_failing", "Whether the disk refuses now.", s.Failing)
}

func (s *upstreamStatus) metrics(m *dashboard.Metrics) {
	upstream := label("upstream", s.Name)
	m.Flag("sluice_upstream_connected", "Whether the server has accepted us.", s.State == "connected", upstream)
	m.Counter("sluice_upstream_attempts_total", "Connections begun.", float64(s.Attempts), upstream)
	m.Counter("sluice_upstream_connects_total", "Connections accepted.", float64(s.Connects), upstream)
	m.Counter("sluice_upstream_messages_total", "Messages acknowledged by the server.", float64(s.Messages), upstream)
	m.Counter("sluice_upstream_records_total", "Records delivered and acknowledged to the log.", float64(s.Records), upstream)
	m.Counter("sluice_upstream_repeated_total", "Messages under way when a connection broke.", float64(s.Repeated), upstream)
	m.Counter("sluice_upstream_unsent_total", "Messages that no server would take.", float64(s.Unsent), upstream)
	m.Counter("sluice_upstream_sent_bytes_total", "Bytes of MQTT packets sent.", float64(s.BytesOut), upstream)
	m.Gauge("sluice_upstream_in_flight", "Messages under way.", float64(s.InFlight), upstream)
	m.Gauge("sluice_upstream_latency_seconds", "Smoothed time from sending to acknowledgement of live data.", s.Latency.Seconds(), upstream)
	m.Gauge("sluice_upstream_held_records", "Records that are sent and wait until the primary host was online for long enough.", float64(s.Held), upstream)
	m.Gauge("sluice_upstream_backlog_records", "Records that wait, also those that are held.", float64(s.Backlog.Records), upstream)
	m.Gauge("sluice_upstream_backlog_bytes", "About how many bytes wait.", float64(s.Backlog.Bytes), upstream)
	m.Gauge("sluice_upstream_drain_seconds", "How long the backlog takes at the present rate.", s.Backlog.ETA.Seconds(), upstream)
	if c := s.Commands; c != nil {
		m.Flag("sluice_upstream_listening", "Whether the server lets us hear commands.", c.Subscribed, upstream)
		m.Counter("sluice_upstream_commands_total", "Messages that came on command topics.", float64(c.Received), upstream)
		m.Counter("sluice_upstream_unanswered_total", "Answers to commands that were given up, as too many waited.", float64(c.Unanswered), upstream)
	}
	if n := s.Sparkplug; n != nil {
		m.Counter("sluice_sparkplug_births_total", "NBIRTHs made.", float64(n.Births), upstream)
		m.Counter("sluice_sparkplug_rebirths_total", "Births that hosts asked for.", float64(n.Rebirths), upstream)
		m.Counter("sluice_sparkplug_commands_total", "Metrics in commands of hosts.", float64(n.Commands), upstream)
		m.Counter("sluice_sparkplug_commands_refused_total", "Of these, refused by the edge node.", float64(n.Refused), upstream)
		m.Gauge("sluice_sparkplug_scan_rate_seconds", "Interval of polls that a host has set; 0: none has.", n.ScanRate.Seconds(), upstream)
		m.Counter("sluice_sparkplug_undeclared_total", "Stored samples that fit no metric any more.", float64(n.Undeclared), upstream)
		m.Counter("sluice_sparkplug_dead_total", "Samples without a value, of devices that hosts know as dead.", float64(n.Dead), upstream)
		m.Gauge("sluice_sparkplug_birth_bytes", "Size of the largest birth.", float64(n.BirthBytes), upstream)
	}
	if !s.Backlog.Oldest.IsZero() {
		m.Gauge("sluice_upstream_oldest_time_seconds", "When the oldest record that waits was taken, since 1970.", float64(s.Backlog.Oldest.Unix()), upstream)
	}
}

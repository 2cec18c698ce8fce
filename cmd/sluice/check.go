package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"sluice/configs"
	"sluice/localbroker/spool"
	"sluice/sparkplug"
)

func (a *app) checkCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "check [site.yaml]",
		Short: "Check a site file and show what it will do",
		Long: "Check a site file: every problem at once, the points it expands to, the reads it takes, the load of\n" +
			"each bus, the messages and the room in the log. It opens no port, and refuses exactly what run refuses. The\n" +
			"exit code is 3 for a file that is refused, and 8 if errors disable some devices and the others run.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return errors.New("one site file at a time")
			}
			return nil
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return []string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt
		},
	}
	path := c.Flags().StringP("config", "c", defaultSite, "site file, if not given as argument")
	_ = c.MarkFlagFilename("config", "yaml", "yml") // fails only for a flag that is not there
	strict := c.Flags().Bool("strict", false, "warnings and disabled devices fail too")
	brief := c.Flags().Bool("brief", false, "do not list the points")
	c.RunE = a.wrap(func(_ context.Context, args []string) (result, error) {
		if len(args) > 0 {
			*path = args[0]
		}
		return check(*path, *strict, *brief)
	})
	return c
}

// check judges a site file and foretells what it will do.
func check(path string, strict, brief bool) (result, error) {
	s, problems, err := loadSite(path)
	switch n := configs.Errors(problems); {
	case err != nil:
	case strict && len(problems) > 0:
		err = fail(exitConfig, fmt.Errorf("%d problem(s), and --strict takes none", len(problems)), "")
	case n > 0:
		err = fail(exitPartial, fmt.Errorf("%d error(s) disable devices; the others run", n), "")
	}
	r := result{notes: problems}
	if s != nil {
		r.data = s.forecast()
	}
	r.human = func(w io.Writer) error {
		var b bytes.Buffer
		if err := configs.Print(&b, problems); err != nil {
			return err
		}
		if s != nil {
			s.forecast().print(&b, brief)
		}
		_, err := w.Write(b.Bytes())
		return err
	}
	return r, err
}

// forecast is what a site will do, for `check`.
type forecast struct {
	Site      string             `json:"site"`
	Points    []pointForecast    `json:"points"`
	Writes    []writeForecast    `json:"writes"` // what may be written
	Buses     []busForecast      `json:"buses"`
	MQTT      []mqttForecast     `json:"mqtt"`
	Upstreams []upstreamForecast `json:"upstreams"`
	Buffer    bufferForecast     `json:"buffer"`
	Broker    *brokerForecast    `json:"broker"` // null: switched off
}

type pointForecast struct {
	Device  string        `json:"device"`
	Point   string        `json:"point"`
	Table   string        `json:"table"`
	Address uint16        `json:"address"`
	Source  string        `json:"source,omitempty"` // of MQTT in place of both: topic and path
	Type    string        `json:"type"`
	Order   string        `json:"order"`
	Unit    string        `json:"unit,omitempty"`
	Every   time.Duration `json:"every_ns"`
	Topic   string        `json:"topic"` // under the site's own template
}

type busForecast struct {
	Name     string         `json:"name"`
	Target   string         `json:"target"`
	Line     string         `json:"line"`
	Load     float64        `json:"load"` // share of time, above 1 too much
	Cycle    time.Duration  `json:"cycle_ns"`
	Overload []string       `json:"overload,omitempty"`
	Reads    []readForecast `json:"reads"`
}

type readForecast struct {
	Device   string        `json:"device"`
	Unit     uint8         `json:"unit"`
	Table    string        `json:"table"`
	Address  uint16        `json:"address"`
	Quantity uint16        `json:"quantity"`
	Points   int           `json:"points"`
	Every    time.Duration `json:"every_ns"`
	Real     time.Duration `json:"real_ns"` // the interval to be expected
	Time     time.Duration `json:"time_ns"`
}

type upstreamForecast struct {
	Name     string   `json:"name"`
	Server   string   `json:"server"`
	Payload  string   `json:"payload"`
	Topic    string   `json:"topic"`
	Order    string   `json:"order"`
	Commands []string `json:"commands,omitempty"`  // filters on which it takes commands
	Messages float64  `json:"messages_per_second"` // at most: reports on change make it less
	PerDay   float64  `json:"bytes_per_day"`       // about
	// PrimaryHost is the host without which an edge node sends nothing.
	PrimaryHost string `json:"primary_host,omitempty"`
	// HostsMay is what Sparkplug hosts may do besides reading, in words.
	HostsMay []string `json:"hosts_may,omitempty"`
}

type bufferForecast struct {
	Dir      string        `json:"dir"`
	Level    spool.Level   `json:"level"`
	Max      int64         `json:"max_bytes"`
	Samples  float64       `json:"samples_per_second"` // at most
	PerDay   float64       `json:"bytes_per_day"`      // about
	MaxAge   time.Duration `json:"max_age_ns,omitempty"`
	TimeLeft time.Duration `json:"time_left_ns"` // of an outage until the first record is let go or refused
	OfDisk   bool          `json:"of_disk"`      // the disk is full before Max is reached
}

// Bytes that are reckoned with before anything is measured.
const (
	spoolBytesPerSample     = 12 // of numbers, packed
	messageBytesPerSample   = 75 // JSON with value, unit, time and quality
	sparkplugBytesPerSample = 18 // with an alias
	templateBytesPerSample  = 32 // in a template instance, by name
	packetBytes             = 10 // around topic and payload of a PUBLISH, with its PUBACK
)

// sparkplugBytes returns about how many bytes a sample takes if so many come in
// so many messages; what compressing saves is measured (docs/sparkplug.md).
func sparkplugBytes(cfg *sparkplug.Config, samples, messages float64) float64 {
	switch {
	case cfg.Templates && cfg.Compress && samples > 0:
		return min(templateBytesPerSample, 9+210*messages/samples)
	case cfg.Templates:
		return templateBytesPerSample
	case !cfg.Compress || samples == 0:
		return sparkplugBytesPerSample
	}
	return min(sparkplugBytesPerSample, 7.2+125*messages/samples)
}

// forecast reckons what the site will do, without opening anything.
func (s *site) forecast() *forecast {
	f := &forecast{Site: s.model.Name, Broker: s.brokerForecast(), Points: []pointForecast{}, Writes: s.writes(), Buses: []busForecast{}, MQTT: []mqttForecast{}, Upstreams: []upstreamForecast{}}
	var samples, polls, topicBytes float64
	type poll struct {
		device int
		every  time.Duration
	}
	seen := make(map[poll]bool)
	for i := range s.model.Points {
		r := &s.model.Points[i]
		device := s.model.Devices[r.Device].Name
		for k, p := range r.Published {
			point := pointForecast{Device: device, Point: p.Name, Table: r.Table.String(),
				Address: r.Address, Type: r.TypeName(), Order: r.Order.String(), Unit: p.Unit, Every: r.Every, Topic: r.Topics[k]}
			if r.MQTT != nil {
				point.Table, point.Order, point.Source = "mqtt", "", r.MQTT.String()
			}
			f.Points = append(f.Points, point)
			samples += 1 / r.Every.Seconds()
			topicBytes += float64(len(r.Topics[k])) / r.Every.Seconds()
		}
		if key := (poll{r.Device, r.Every}); !seen[key] {
			seen[key] = true
			polls += 1 / r.Every.Seconds()
		}
	}
	for i := range s.buses {
		f.Buses = append(f.Buses, s.buses[i].report())
	}
	for i := range s.mqtt {
		f.MQTT = append(f.MQTT, s.mqtt[i].report())
	}
	for _, cfg := range s.Upstreams {
		cfg = cfg.Effective()
		u := upstreamForecast{Name: cfg.Name, Server: server(cfg), Payload: cfg.Payload, Topic: cfg.Topic, Order: cfg.Order, Messages: samples, Commands: s.commandTopics(&cfg)}
		bytes := samples*(messageBytesPerSample+packetBytes) + topicBytes
		if cfg.Payload == "json-device" {
			u.Messages, bytes = polls, samples*25+polls*(packetBytes+60)
		}
		if cfg.IsSparkplug() {
			group, node := s.edgeNode(&cfg)
			u.Topic, u.Messages, bytes = "spBv1.0/"+group+"/+/"+node+"/#", polls, samples*sparkplugBytes(cfg.Sparkplug, samples, polls)+polls*(packetBytes+40)
			u.HostsMay, u.PrimaryHost = hostsMay(cfg.Sparkplug), cfg.Sparkplug.PrimaryHost
		}
		u.PerDay = bytes * 86400
		f.Upstreams = append(f.Upstreams, u)
	}
	f.Buffer = bufferForecast{MaxAge: s.Buffer.MaxAge, Dir: s.Buffer.Dir, Level: s.Buffer.Level, Max: int64(s.Buffer.Effective().Max), Samples: samples,
		PerDay: samples * spoolBytesPerSample * 86400}
	if f.Buffer.PerDay > 0 {
		most := f.Buffer.Max
		if f.Buffer.Level != spool.Memory {
			if disk := room(s.resolve(f.Buffer.Dir)); disk < most {
				most, f.Buffer.OfDisk = disk, true
			}
		}
		days := min(float64(most)/f.Buffer.PerDay, 36500)
		f.Buffer.TimeLeft = time.Duration(days * 24 * float64(time.Hour))
		if age := s.Buffer.MaxAge; age > 0 {
			f.Buffer.TimeLeft = min(f.Buffer.TimeLeft, age)
		}
	}
	return f
}

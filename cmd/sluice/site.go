package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"sluice/configs"
	"sluice/dashboard"
	"sluice/localbroker"
	"sluice/localbroker/spool"
	"sluice/mapping"
	"sluice/mapping/command"
	"sluice/publish"
	"sluice/sources/hostclock"
	"sluice/sources/modbus"
	"sluice/sources/modbus/link"
)

// siteFile is the site file: every section belongs to the package that uses it.
type siteFile struct {
	Mapping   mapping.Config     `yaml:",inline"`
	Clock     clockConfig        `yaml:"clock"`
	Buffer    spool.Config       `yaml:"buffer"`
	Broker    localbroker.Config `yaml:"broker"`
	Upstreams []publish.Config   `yaml:"upstreams"`
	Forget    []string           `yaml:"forget_upstreams"` // former upstreams whose place in the log is let go at once
	Commands  command.Config     `yaml:"commands"`
	HTTP      dashboard.Config   `yaml:"http"`
	Log       logConfig          `yaml:"log"`
}

// clockConfig is the section `clock:`.
type clockConfig struct {
	Trust string `yaml:"trust"` // auto, always or ntp
}

// Validate returns what is wrong with the section.
func (c *clockConfig) Validate() []configs.FieldError {
	if _, err := hostclock.ParseTrust(c.Trust); err != nil {
		return []configs.FieldError{{Field: "trust", Message: err.Error(),
			Fix: "use auto, always (the clock is right whatever the kernel says) or ntp (wait for a time server)"}}
	}
	return nil
}

// logConfig is the section `log:`.
type logConfig struct {
	Level  string `yaml:"level"`  // debug, info, warn or error
	Format string `yaml:"format"` // text or json
}

// SetDefaults sets level info in text.
func (c *logConfig) SetDefaults() { *c = logConfig{Level: "info", Format: "text"} }

// Validate returns what is wrong with the section.
func (c *logConfig) Validate() []configs.FieldError {
	var problems []configs.FieldError
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		problems = append(problems, configs.FieldError{Field: "level",
			Message: fmt.Sprintf("unknown log level %q", c.Level), Fix: "use debug, info, warn or error"})
	}
	if c.Format != "text" && c.Format != "json" {
		problems = append(problems, configs.FieldError{Field: "format",
			Message: fmt.Sprintf("unknown log format %q", c.Format), Fix: "use text or json"})
	}
	return problems
}

// The codes of problems that only this package can see.
const (
	codeUpstreamTwice = "SLUICE-CFG-300" // two upstreams of one name
	codeBus           = "SLUICE-CFG-301" // a bus that cannot be opened as described
	codeUnreadable    = "SLUICE-CFG-302" // a device that cannot be polled as described
	codeOverload      = "SLUICE-CFG-303" // a bus that cannot keep the intervals (warning)
	codeForget        = "SLUICE-CFG-304" // an upstream that is to be let go, and is there
)

// site is a site file ready to run.
type site struct {
	siteFile
	path  string
	dir   string // where relative paths begin
	model *mapping.Site
	// partial says that not all the file has is in model, as some of it is wrong:
	// what nothing seems to need is no news then.
	partial bool
	buses   []bus
	mqtt    []mqttBus
	ways    map[string]*command.Routes // of commands over upstreams, by name; see routes
	// problems are warnings and those of single devices, which are disabled.
	problems []configs.Problem
}

// bus is one bus as it will be opened and polled.
type bus struct {
	name     string
	link     link.Config
	line     modbus.Line
	devices  []modbus.Device
	forecast *modbus.Forecast
}

// loadSite reads and judges a site file. It is the one way to a site: what
// `check` refuses, `run` refuses, and nothing else. The problems are returned
// in every case; the error is a *failure with the exit code.
func loadSite(path string) (*site, []configs.Problem, error) {
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, nil, fail(exitPermission, err, "let the user of the gateway read the file")
	case err != nil:
		problems := []configs.Problem{{File: path, Code: configs.CodeUnreadable, Message: err.Error(),
			Fix: "check the path; it is named as in sluice check site.yaml and sluice run -c site.yaml"}}
		return nil, problems, &failure{code: exitConfig, err: errors.New("there is no site file to read"), problems: problems}
	}
	s := &site{path: path, dir: filepath.Dir(path)}
	doc, problems := configs.Decode(path, data, &s.siteFile)
	if doc.Position("") == (configs.Position{}) {
		return s.refuse(problems) // there is nothing to build from
	}
	if s.Mapping.Gateway == "" {
		// Without a host name the tests of {gateway} in topics report it.
		s.Mapping.Gateway, _ = os.Hostname()
	}
	model, more := mapping.Build(&s.Mapping, doc)
	problems = append(problems, more...)
	s.model, s.partial = model, configs.Errors(problems) > 0
	s.defaultTopics()
	problems = append(problems, s.build(doc)...)
	problems = append(problems, s.upstreamProblems(doc)...)
	problems = append(problems, s.forgetProblems(doc)...)
	problems = append(problems, s.topicProblems(doc)...)
	problems = append(problems, s.brokerProblems(doc)...)
	problems = append(problems, s.diskProblems(doc)...)
	problems = configs.Sort(problems)
	if configs.Refused(problems) {
		return s.refuse(problems)
	}
	s.Buffer.Dir, s.Buffer.Backup = s.resolve(s.Buffer.Dir), s.resolve(s.Buffer.Backup)
	s.problems = problems
	return s, problems, nil
}

// refuse is the end of loadSite for a file that cannot be used.
func (s *site) refuse(problems []configs.Problem) (*site, []configs.Problem, error) {
	err := fmt.Errorf("%s is not a usable site file: %d error(s)", s.path, configs.Errors(problems))
	return nil, problems, &failure{code: exitConfig, err: err, problems: problems}
}

// resolve makes a path of the site file absolute or relative to the working
// folder; relative ones begin at the site file.
func (s *site) resolve(path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(s.dir, path)
}

// upstreamProblems finds names that are used twice: each names a cursor.
func (s *site) upstreamProblems(doc *configs.Document) []configs.Problem {
	var problems []configs.Problem
	seen := make(map[string]bool)
	for i := range s.Upstreams {
		name := s.Upstreams[i].Name
		if name != "" && seen[name] {
			pos := doc.Position(configs.Join(configs.Index("upstreams", i), "name"))
			problems = append(problems, doc.Problem(pos, configs.Problem{Code: codeUpstreamTwice,
				Message: fmt.Sprintf("two upstreams are called %q", name), Fix: "give each its own name"}))
		}
		seen[name] = true
	}
	return problems
}

// build makes the buses of the model. What cannot be polled disables its
// device, or all devices of its bus.
func (s *site) build(doc *configs.Document) []configs.Problem {
	var problems []configs.Problem
	for i := range s.model.Buses {
		if s.model.Buses[i].Kind == mapping.BusMQTT {
			b, wrong := s.mqttBus(doc, i)
			s.mqtt = append(s.mqtt, b)
			problems = append(problems, wrong...)
			continue
		}
		b, wrong := s.bus(&s.model.Buses[i])
		for _, e := range wrong {
			problems = append(problems, doc.Problem(s.busPosition(doc, i, e.Field), configs.Problem{Code: codeBus,
				Message: fmt.Sprintf("bus %s: %s", b.name, e.Message), Fix: e.Fix, Warning: e.Warning}))
		}
		if slices.ContainsFunc(wrong, func(e link.FieldError) bool { return !e.Warning }) {
			continue
		}
		for _, d := range s.model.Buses[i].Devices {
			if s.model.Devices[d].Disabled {
				continue
			}
			device := s.device(d)
			if _, err := modbus.Plan(b.line, []modbus.Device{device}); err != nil {
				pos := doc.Position(s.devicePath(device.Name))
				problems = append(problems, doc.Problem(pos, configs.Problem{Code: codeUnreadable,
					Message: err.Error(), Device: device.Name}))
				s.disable(d, err)
				continue
			}
			b.devices = append(b.devices, device)
		}
		var err error
		if b.forecast, err = modbus.Plan(b.line, b.devices); err != nil {
			problems = append(problems, doc.Problem(s.busPosition(doc, i, ""), configs.Problem{Code: codeBus,
				Message: fmt.Sprintf("bus %s: %v", b.name, err)}))
			continue
		}
		for _, sentence := range b.forecast.Overload() {
			problems = append(problems, doc.Problem(s.busPosition(doc, i, ""), configs.Problem{Code: codeOverload, Warning: true,
				Message: fmt.Sprintf("bus %s cannot keep up: %s", b.name, sentence), Fix: "read less often (every), fewer points (only, skip), or raise the speed of the line"}))
		}
		s.buses = append(s.buses, b)
	}
	return problems
}

// busPosition returns where a setting of a bus stands in the file: under
// buses, or for a bus that only devices name, at the first of them.
func (s *site) busPosition(doc *configs.Document, bus int, field string) configs.Position {
	b := &s.model.Buses[bus]
	path := configs.Join("buses", b.Name)
	switch {
	case doc.Has(path) && field == "":
		return doc.KeyPosition(path)
	case doc.Has(path):
		return doc.Position(path + "." + field)
	case len(b.Devices) == 0:
		return doc.Position("devices")
	}
	return doc.Position(s.devicePath(s.model.Devices[b.Devices[0]].Name) + ".on")
}

func (s *site) disable(device int, err error) {
	d := &s.model.Devices[device]
	d.Disabled = true
	d.Why = append(d.Why, err.Error())
}

// devicePath returns where a device stands in the file.
func (s *site) devicePath(name string) string {
	i := slices.IndexFunc(s.Mapping.Devices, func(d mapping.DeviceConfig) bool { return d.Name == name })
	return configs.Index("devices", max(i, 0))
}

// points returns every point that is published.
func (s *site) points() []*mapping.Point {
	var all []*mapping.Point
	for i := range s.model.Points {
		all = append(all, s.model.Points[i].Published...)
	}
	return all
}

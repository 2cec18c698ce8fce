package main

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"time"

	"sluice/configs"
	"sluice/mapping"
	"sluice/mapping/command"
	"sluice/publish"
	"sluice/sparkplug"
)

// edgeNode returns the group and the edge node of an upstream.
func (s *site) edgeNode(cfg *publish.Config) (group, node string) {
	group, node = s.model.Name, s.model.Gateway
	if own := cfg.Effective().Sparkplug; own != nil {
		if own.Group != "" {
			group = own.Group
		}
		if own.Node != "" {
			node = own.Node
		}
	}
	return group, node
}

// passing returns the points of an upstream.
func (s *site) passing(cfg *publish.Config) []*mapping.Point {
	var points []*mapping.Point
	for _, p := range s.points() {
		if cfg.Filter.Passes(p) {
			points = append(points, p)
		}
	}
	return points
}

// profiles returns a function that tells the profile a point is of, "" for none.
func (s *site) profiles() func(*mapping.Point) string {
	of := make(map[*mapping.Point]string)
	for i := range s.model.Points {
		if r := &s.model.Points[i]; r.OfProfile {
			for _, p := range r.Published {
				of[p] = s.model.Devices[r.Device].Profile
			}
		}
	}
	return func(p *mapping.Point) string { return of[p] }
}

// templates returns the profile of each point of an edge node that publishes
// templates, nil for one that does not.
func (s *site) templates(cfg *publish.Config) (all []string) {
	if cfg.Effective().Sparkplug.Templates {
		of := s.profiles()
		for _, p := range s.passing(cfg) {
			all = append(all, of(p))
		}
	}
	return all
}

// sameNode reports whether the edge node of u has the same metrics with s.
func (u *upstream) sameNode(s *site) bool {
	return reflect.DeepEqual(u.points, s.passing(&u.cfg)) && slices.Equal(u.templates, s.templates(&u.cfg))
}

// nodeConfig is the section sparkplug of an upstream with the names filled in.
func (s *site) nodeConfig(cfg *publish.Config) sparkplug.Config {
	node := *cfg.Effective().Sparkplug
	node.Group, node.Node = s.edgeNode(cfg)
	return node
}

// sparkplugProblems finds names that Sparkplug cannot carry, and two upstreams
// that are one edge node.
func (s *site) sparkplugProblems(doc *configs.Document, index int) []configs.Problem {
	cfg := &s.Upstreams[index]
	at := doc.Position(configs.Join(configs.Index("upstreams", index), "payload"))
	if len(cfg.Effective().Sparkplug.Validate()) > 0 {
		return nil // reported where they stand
	}
	own := s.nodeConfig(cfg)
	_, err := sparkplug.New(own, sparkplug.Options{Points: s.passing(cfg), Profile: s.profiles(), Now: time.Now, Sequence: noSequence{},
		End: func() uint64 { return 0 }, Current: func() []mapping.Record { return nil }})
	if err != nil {
		return []configs.Problem{doc.Problem(at, configs.Problem{Code: configs.CodeSetting, Message: err.Error(),
			Fix: "name it otherwise, or set sparkplug: { group: ..., node: ... }"})}
	}
	problems := append(s.scanProblems(doc, index), s.idleSettings(doc, index)...)
	group, node := s.edgeNode(cfg)
	for i := range index {
		if g, n := s.edgeNode(&s.Upstreams[i]); s.Upstreams[i].IsSparkplug() && g == group && n == node {
			p := configs.Problem{Code: configs.CodeSetting, Warning: true,
				Message: fmt.Sprintf("the upstreams %s and %s are both the edge node %s/%s", s.Upstreams[i].Name, cfg.Name, g, n),
				Fix:     "give them their own sparkplug.node, unless no host sees both"}
			if shareServer(cfg, &s.Upstreams[i]) {
				p.Warning, p.Fix = false, "give them their own sparkplug.node"
				p.Message += " on one server, where they cut each other off"
			}
			return append(problems, doc.Problem(at, p))
		}
	}
	return problems
}

// idleSettings finds settings of an edge node that change nothing.
func (s *site) idleSettings(doc *configs.Document, index int) (problems []configs.Problem) {
	cfg := &s.Upstreams[index]
	own, points := cfg.Effective().Sparkplug, s.passing(cfg)
	section := configs.Join(configs.Index("upstreams", index), "sparkplug")
	warn := func(key, message, fix string) {
		problems = append(problems, doc.Problem(doc.Position(configs.Join(section, key)), configs.Problem{Code: configs.CodeSetting, Warning: true,
			Message: message, Fix: fix}))
	}
	profile := s.profiles()
	if own.Templates && !s.partial && !slices.ContainsFunc(points, func(p *mapping.Point) bool { return profile(p) != "" }) {
		warn("templates", "templates are of profiles, and none of its devices has a profile", "remove templates, or make a profile of the points: docs/points-list.md")
	}
	writable := func(t mapping.Target) bool { return t.Write != nil && cfg.Filter.Passes(t.Point) }
	if own.Writes && !s.partial && !slices.ContainsFunc(s.model.Targets(), writable) {
		warn("writes", fmt.Sprintf("hosts of %s may write, and none of its points may be written", cfg.Name), "give points a write: with their limits, or remove writes")
	}
	if own.PrimaryHost == "" && doc.Has(configs.Join(section, "host_grace")) {
		warn("host_grace", "host_grace has no meaning without primary_host", "name the host as primary_host, or remove it")
	}
	return problems
}

// hostsMay says what hosts of an edge node may do, besides asking for births.
func hostsMay(cfg *sparkplug.Config) (all []string) {
	if cfg.Writes {
		all = append(all, "write to the points that may be written")
	}
	if cfg.Reboot {
		all = append(all, "have the program started anew")
	}
	if r := cfg.ScanRate; r != nil {
		all = append(all, fmt.Sprintf("set how often is polled, from %v to %v", r.Min, r.Max))
	}
	return all
}

// noSequence is for an edge node that never connects.
type noSequence struct{}

func (noSequence) Load() (uint8, bool, error) { return 0, false, nil }
func (noSequence) Store(uint8) error          { return nil }

// hostGrace returns how long samples wait for the news that the primary host is
// gone; 0 without one.
func hostGrace(cfg *publish.Config) time.Duration {
	if own := cfg.Effective().Sparkplug; own.PrimaryHost != "" {
		return own.HostGrace
	}
	return 0
}

// inOrderFor returns how long live samples wait for the history; 0 for ever.
func inOrderFor(cfg *publish.Config) time.Duration {
	if own := cfg.Effective().Sparkplug; own != nil {
		return own.InOrderFor
	}
	return 0
}

// newNode makes the edge node of an upstream.
func (g *gateway) newNode(cfg *publish.Config, s *site, points []*mapping.Point) (*sparkplug.Node, error) {
	own := s.nodeConfig(cfg)
	o := sparkplug.Options{Points: points, Profile: s.profiles(), Passes: cfg.Filter.Passes, End: g.spool.NextSeq,
		Current: func() []mapping.Record { return g.current(s.Buffer.ClockWait) },
		Now:     func() time.Time { return g.clock.Now().Time() }, ClockReady: func() bool { return g.clockReady(s.Buffer.ClockWait) },
		Sequence: bdSeqFile(filepath.Join(s.Buffer.Dir, "bdseq-"+cfg.Name+".json")),
		Servers:  len(cfg.Addresses()), Log: g.log.With("stage", "sparkplug", "upstream", cfg.Name)}
	if own.Writes {
		o.Write = func(w sparkplug.Write) { g.hostWrites(cfg.Name, w) }
	}
	if own.Reboot {
		o.Reboot = func(topic string) { g.askRestart(restart{cfg.Name, topic}) }
	}
	if own.ScanRate != nil {
		o.ScanRate = func(topic string, every time.Duration) { g.askScanRate(scanRequest{cfg.Name, topic, every}) }
	}
	node, err := sparkplug.New(own, o)
	if held := g.rates[cfg.Name]; err == nil && own.ScanRate.Allows(held) {
		node.SetScanRate(held)
	}
	return node, err
}

// hostWrites passes a command of a Sparkplug host on. Its result is the value that
// is read back, as data; what is refused is in the audit log, and logged with its
// line there: of a flood both have few.
func (g *gateway) hostWrites(upstream string, w sparkplug.Write) {
	r := command.Request{Origin: command.Origin{Kind: command.Sparkplug, Name: upstream, Client: w.Topic},
		Device: w.Point.Device, Point: w.Point.Name, Value: w.Value, Sent: w.Sent, ID: writeID(&w)}
	g.submit(r, func(result *command.Result) {
		if result.Code != command.OK && result.Entry > 0 {
			g.log.Warn("a command of a Sparkplug host was not carried out", "upstream", upstream, "device", r.Device,
				"point", r.Point, "code", string(result.Code), "reason", result.Message)
		}
	})
}

// writeID returns what tells a command from others: the same once more is the same,
// delivered twice. It is "" if the host does not say when it has sent it.
func writeID(w *sparkplug.Write) string {
	if w.Sent.IsZero() {
		return ""
	}
	id := w.Value.AppendJSON(strconv.AppendInt([]byte(w.Point.Device+"/"+w.Point.Name+" "), w.Sent.UnixMilli(), 10))
	if len(id) > 100 { // the audit log cuts off what is much longer
		return fmt.Sprintf("%x", sha256.Sum256(id))
	}
	return string(id)
}

// status asks an upstream for its state.
func (u *upstream) status() upstreamStatus {
	s := upstreamStatus{Stats: u.Stats()}
	if u.node != nil {
		s.Sparkplug = new(sparkplug.Stats)
		u.Ask(func() { *s.Sparkplug = u.node.Stats() })
	}
	return s
}

// bdSeqFile keeps the bdSeq of an edge node, in the data folder.
type bdSeqFile string

type bdSeq struct {
	BdSeq *uint8 `json:"bd_seq"`
}

// Load returns the last bdSeq. A damaged file counts as none. One that cannot be
// read is an error: the connection is tried again, and shows it.
func (f bdSeqFile) Load() (n uint8, ok bool, err error) {
	data, err := os.ReadFile(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	var stored bdSeq
	if json.Unmarshal(data, &stored) != nil || stored.BdSeq == nil {
		return 0, false, nil // damaged: hosts take any number that differs
	}
	return *stored.BdSeq, true, nil
}

// Store writes n durably.
func (f bdSeqFile) Store(n uint8) error {
	data, err := json.Marshal(bdSeq{&n})
	if err != nil {
		return err
	}
	return writeDurably(string(f), append(data, '\n'))
}

var _ sparkplug.Sequence = bdSeqFile("")

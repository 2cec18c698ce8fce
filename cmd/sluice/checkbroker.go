package main

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"

	"sluice/configs"
	"sluice/localbroker"
	"sluice/localbroker/access"
	"sluice/localbroker/spool"
	"sluice/localbroker/topics"
)

// The codes of what is odd about the local broker. The file runs with it.
const (
	codeLANNowhere = "SLUICE-CFG-308" // LAN messages go upstream, and there is no upstream (warning)
	codeNoBirths   = "SLUICE-CFG-309" // sparkplug_aware, and no client may publish births (warning)
)

// brokerProblems warns of keys of the broker that will have no effect.
func (s *site) brokerProblems(doc *configs.Document) []configs.Problem {
	var problems []configs.Problem
	warn := func(path, code, message, fix string) {
		problems = append(problems, doc.Problem(doc.KeyPosition(path), configs.Problem{Code: code, Warning: true, Message: message, Fix: fix}))
	}
	b := &s.Broker
	if !b.Enabled {
		return nil
	}
	if len(b.LAN) > 0 && len(s.Upstreams) == 0 {
		warn("broker.lan", codeLANNowhere, "messages of LAN devices go upstream, and there is no upstream",
			"add upstreams:, or write publish: in place of lan:, if clients are to reach each other only")
	}
	publish := b.Publish
	if publish == nil {
		publish = b.LAN
	}
	named := false
	for _, l := range b.Effective() {
		named = named || l.Users != "" || l.ClientCerts != access.CertsOff
	}
	if b.SparkplugAware && !named && !topics.MatchesAny(publish, "spBv1.0/#") {
		warn("broker.sparkplug_aware", codeNoBirths, "no client may publish births under spBv1.0/",
			"allow it: broker: { publish: [\"spBv1.0/#\"] }, or give the edge nodes names and rights in a users file")
	}
	return problems
}

// brokerForecast is what the local broker will do.
type brokerForecast struct {
	Listeners []listenerForecast `json:"listeners"`
	Sessions  bool               `json:"sessions"` // kept over a restart
	Level     spool.Level        `json:"level"`
	Dir       string             `json:"dir"`
	Max       int64              `json:"max_bytes"` // of messages that wait
	LAN       []string           `json:"lan,omitempty"`
}

type listenerForecast struct {
	Address string `json:"address"`
	Who     string `json:"who"` // is let in
}

// brokerForecast says what the broker will do; nil if it is switched off.
func (s *site) brokerForecast() *brokerForecast {
	if !s.Broker.Enabled {
		return nil
	}
	storage := s.Broker.Storage
	storage.Inherit(s.Buffer.Effective())
	f := &brokerForecast{Listeners: []listenerForecast{}, Level: storage.Level, Sessions: s.Broker.Sessions && storage.Level != spool.Memory,
		Dir: filepath.Join(s.Buffer.Dir, sessionsFolder), Max: int64(storage.MaxSize), LAN: s.Broker.LAN}
	for _, l := range s.Broker.Effective() {
		f.Listeners = append(f.Listeners, listenerForecast{l.Address, whoIsLetIn(&l)})
	}
	return f
}

// whoIsLetIn says who may come in at a listener.
func whoIsLetIn(l *localbroker.Listener) string {
	var who []string
	if l.Anonymous != nil && *l.Anonymous {
		who = append(who, "clients of this machine")
	}
	certificates := map[access.ClientCerts]string{
		access.CertsAny: "any certificate", access.CertsAuthorised: "authorised certificates", access.CertsPinned: "pinned certificates",
	}[l.ClientCerts]
	users := ""
	if l.Users != "" {
		users = "users of " + filepath.Base(string(l.Users))
	}
	switch {
	case l.Login == access.LoginCertificate:
		users = certificates
	case l.Login == access.LoginBoth:
		users += " with " + certificates
	case l.Login == access.LoginEither && certificates != "":
		users = strings.TrimPrefix(users+", "+certificates, ", ")
	}
	if users != "" {
		who = append(who, users)
	}
	if len(who) == 0 {
		return "nobody"
	}
	return strings.Join(who, ", ")
}

// print writes the forecast for people.
func (f *brokerForecast) print(b *bytes.Buffer) {
	if f == nil {
		fmt.Fprintf(b, "\nlocal broker: off\n")
		return
	}
	b.WriteString("\nlocal broker")
	for _, l := range f.Listeners {
		fmt.Fprintf(b, "\n  %s lets in %s", l.Address, l.Who)
	}
	if f.Sessions {
		fmt.Fprintf(b, "\n  sessions in %s, level %s, at most %s wait for them\n", f.Dir, f.Level, size(float64(f.Max)))
	} else {
		b.WriteString("\n  sessions end with the process\n")
	}
}

package mapping

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sluice/configs"
)

// Build turns a decoded site file into a Site. doc is what Decode returned for
// the same file: problems get their place from it, and a device in which
// Decode found an error is disabled. Profiles are read from the folders in cfg
// and the built-in ones; nothing else is opened.
//
// The problems are those that Decode could not find, in the order of the file.
// A problem with Device set disables that device alone; with any other error
// (configs.Refused) the Site must not be run. The Site is never nil.
func Build(cfg *Config, doc *configs.Document) (*Site, []configs.Problem) {
	b := &builder{cfg: cfg, doc: doc, reporter: reporter{},
		site: &Site{Name: cfg.Site, Gateway: cfg.Gateway, Tags: pointTags(cfg.Tags)}}
	b.names()
	b.defaults()
	b.library()
	b.buses()
	for i := range cfg.Devices {
		b.device(i)
	}
	b.finish()
	return b.site, configs.Sort(b.problems)
}

type builder struct {
	reporter
	cfg      *Config
	doc      *configs.Document
	site     *Site
	profiles *library
	allBuses []busBuild
	order    []string // names of devices so far
}

func (b *builder) at(path string) place { return place{doc: b.doc, path: path} }

// names checks the site's own names and tags.
func (b *builder) names() {
	if !b.doc.Failed("site") {
		checkName(&b.reporter, b.at("site"), "site", b.cfg.Site)
	}
	if b.cfg.Gateway != "" {
		checkName(&b.reporter, b.at("gateway"), "gateway", b.cfg.Gateway)
	}
	b.tags("tags", b.cfg.Tags)
	if len(b.cfg.Devices) == 0 && !b.doc.Failed("devices") {
		b.add(b.at("devices"), finding{code: CodeNoPoints, warning: true, message: "there are no devices, so nothing is read", fix: "add devices:"})
	}
}

// checkTags checks the keys and values of tags.
func (r *reporter) checkTags(doc *configs.Document, path string, tags configs.Ordered[string]) {
	for _, t := range tags {
		at := place{doc: doc, path: configs.Join(path, t.Key)}
		if message, fix := nameProblem(t.Key, false); message != "" {
			r.failKey(at, CodeTag, "tag: "+message, fix)
		}
		if strings.TrimSpace(t.Value) == "" {
			r.fail(at, CodeTag, "tag "+quote(t.Key)+" is empty", "give it a value, or remove it")
		}
	}
}

func (b *builder) tags(path string, tags configs.Ordered[string]) { b.checkTags(b.doc, path, tags) }

// defaults checks the defaults section.
func (b *builder) defaults() {
	d := &b.cfg.Defaults
	checkEvery(&b.reporter, b.at("defaults.every"), d.Every)
	checkTimeout(&b.reporter, b.at("defaults.timeout"), d.Timeout)
	checkRetries(&b.reporter, b.at("defaults.retries"), d.Retries)
	if d.Force != nil && *d.Force < 0 {
		b.fail(b.at("defaults.force"), CodeInterval, "force is negative", "leave it out for never")
	}
	if d.Deadband != "" {
		if _, failure := parseDeadband(d.Deadband); failure != nil {
			b.fail(b.at("defaults.deadband"), failure.Code, failure.Message, failure.Fix)
		}
	}
	topic, err := ParseTopic(d.Topic)
	if err != nil {
		b.failTopic(b.at("defaults.topic"), err)
		topic, _ = ParseTopic(DefaultTopic) // a constant that parses
	}
	if err == nil && !topic.Uses("point") {
		b.fail(b.at("defaults.topic"), CodeTopic, "without {point} all points of a device have one topic", "for example "+DefaultTopic)
	}
	b.site.Topic = topic.WithGateway(b.cfg.Gateway)
}

// library opens the folders of profiles.
func (b *builder) library() {
	b.profiles = &library{loaded: map[string]*loadedProfile{}}
	for i, folder := range b.cfg.Profiles {
		if !filepath.IsAbs(folder) {
			folder = filepath.Join(filepath.Dir(b.doc.File), folder)
		}
		if _, err := os.ReadDir(folder); err != nil {
			fix := "check the path; it begins at the folder of the site file"
			b.fail(b.at(configs.Index("profiles", i)), CodeProfile, "profiles: "+plainError(err), fix)
			continue
		}
		b.profiles.folders = append(b.profiles.folders, folder)
	}
}

// plainError says what the operating system said, without the call's name.
func plainError(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Path + ": " + p.Err.Error()
	}
	return err.Error()
}

// finish resolves what can be known only when all devices are there.
func (b *builder) finish() {
	b.settleSerial()
	b.uniqueTopics()
}

// uniqueTopics works out every topic under the site's template and refuses
// what MQTT does not allow and what two points share.
func (b *builder) uniqueTopics() {
	own := map[string]Topic{}
	first := map[string]*Point{}
	for i := range b.site.Points {
		r := &b.site.Points[i]
		device := &b.site.Devices[r.Device]
		for _, p := range r.Published {
			topic := b.site.Topic
			if p.Topic != "" {
				if _, have := own[p.Topic]; !have {
					own[p.Topic], _ = ParseTopic(p.Topic) // was checked with the device
				}
				topic = own[p.Topic].WithGateway(b.cfg.Gateway)
			}
			text := string(topic.Append(nil, p))
			r.Topics = append(r.Topics, text)
			other, twice := first[text]
			if !twice {
				first[text] = p
				continue
			}
			at := b.deviceAt(device.Name)
			b.fail(at, CodeSameTopic, fmt.Sprintf("%s and %s have the topic %q", other.path(), p.path(), text),
				"put {device} and {point} into the template")
		}
	}
}

// deviceAt is the place of the name of a device.
func (b *builder) deviceAt(name string) place {
	i := slices.Index(b.order, name)
	return b.at(configs.Join(configs.Index("devices", max(i, 0)), "name"))
}

// pointTags sorts tags by key.
func pointTags(tags configs.Ordered[string]) []Tag {
	all := make([]Tag, 0, len(tags))
	for _, t := range tags {
		all = append(all, Tag{t.Key, t.Value})
	}
	slices.SortFunc(all, func(x, y Tag) int { return strings.Compare(x.Key, y.Key) })
	return all
}

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

// Profile is what a model of device is: its registers and its habits.
type Profile struct {
	Name   string   `yaml:"profile"`
	Make   string   `yaml:"make"`
	Model  string   `yaml:"model"`
	Also   []string `yaml:"also"`   // other models with the same registers
	Source string   `yaml:"source"` // the maker's manual
	// Verified is "manual" or "device": what every register was compared with.
	// Empty is neither; the file's comment says what it rests on.
	Verified string                       `yaml:"verified"`
	Serial   SerialDefaults               `yaml:"serial"`
	Detect   Detections                   `yaml:"detect"`
	Order    string                       `yaml:"order"`
	Base     *int                         `yaml:"base"`
	Quirks   QuirksConfig                 `yaml:"quirks"`
	Points   configs.Ordered[PointConfig] `yaml:"points"`
	Groups   configs.Ordered[Patterns]    `yaml:"groups"`

	doc *configs.Document
}

// SerialDefaults are the settings a device leaves the factory with.
type SerialDefaults struct {
	Baud   int    `yaml:"baud"`
	Format string `yaml:"format"`
}

// Detection is a read that tells the model: the value lies in Range.
type Detection struct {
	Read  string    `yaml:"read"` // a short form
	Range []float64 `yaml:"range"`
	Text  string    `yaml:"text"` // or the value begins with this text
	Score int       `yaml:"score"`
}

// Detections are written as one mapping or a list of them.
type Detections []Detection

// DecodeNode reads either.
func (d *Detections) DecodeNode(n configs.Node) {
	if n.IsMapping() {
		*d = make(Detections, 1)
		n.Decode(&(*d)[0])
		return
	}
	n.Decode((*[]Detection)(d))
}

// LoadProfile decodes a profile file. The Profile is nil if it cannot be used;
// then there is at least one error among the problems.
func LoadProfile(file string, data []byte) (*Profile, []configs.Problem) {
	p := &Profile{}
	doc, problems := configs.Decode(file, data, p)
	p.doc = doc
	r := &reporter{problems: problems, failed: doc.Failed("")}
	p.check(r)
	if r.failed {
		p = nil
	}
	return p, configs.Sort(r.problems)
}

// check finds what decoding alone cannot.
func (p *Profile) check(r *reporter) {
	at := func(path string) place { return place{doc: p.doc, path: path} }
	if !r.failed {
		checkName(r, at("profile"), "profile", p.Name)
	}
	if p.Verified != "" && p.Verified != "manual" && p.Verified != "device" {
		r.fail(at("verified"), CodeProfile, "verified is manual or device, not "+quote(p.Verified), "")
	}
	if p.Serial.Format != "" {
		if _, failure := parseFormat(p.Serial.Format); failure != nil {
			r.fail(at("serial.format"), failure.Code, failure.Message, failure.Fix)
		}
	}
	p.Quirks.quirks(r, at("quirks"))
	base, said := baseOf(r, at("base"), p.Base)
	order := orderOf(r, at("order"), p.Order)
	for i, d := range p.Detect {
		path := configs.Index("detect", i)
		if !p.doc.Has(path) {
			path = "detect"
		}
		for _, f := range parseShort(d.Read, base, said).problems {
			r.add(at(path+".read"), f)
		}
		if len(d.Range) != 2 && d.Text == "" {
			r.fail(at(path), CodeProfile, "detect needs a range of two numbers or a text", "range: [80, 300]")
		}
	}
	specs := p.specs(r)
	names := make([]string, len(specs))
	for i := range specs {
		names[i] = specs[i].name
	}
	for _, g := range p.Groups {
		for i, pattern := range g.Value {
			if !slices.ContainsFunc(names, func(n string) bool { return matches(pattern, n) }) {
				r.fail(at(configs.Index(configs.Join("groups", g.Key), i)), CodePattern, "no point is called "+quote(pattern), configs.DidYouMean(pattern, names))
			}
		}
	}
	for i := range specs {
		d := deviceBuild{reporter: r, order: order}
		d.check(&specs[i])
	}
}

// namedSpec is a point of a profile or site.
type namedSpec struct {
	name string
	spec *spec
	own  bool // written in the site file
	// profile says that the profile has it, whether or not the site file changes it.
	profile bool
}

// specs parses the points.
func (p *Profile) specs(r *reporter) []namedSpec {
	base, said := 0, false
	if p.Base != nil {
		base, said = *p.Base, true
	}
	var all []namedSpec
	for i := range p.Points {
		name := p.Points[i].Key
		at := place{doc: p.doc, path: configs.Join("points", name)}
		before := len(r.problems)
		checkPointName(r, at, name)
		s := r.parsePoint(&p.Points[i].Value, at, pointForm{base: base, baseSaid: said})
		s.failed = p.doc.Failed(at.path) || len(why(r.problems[before:])) > 0
		all = append(all, namedSpec{name: name, spec: s, profile: true})
	}
	return all
}

// library finds profiles by name: the user's folders first, then the built-in
// ones. It reads a file once.
type library struct {
	folders []string
	loaded  map[string]*loadedProfile
}

type loadedProfile struct {
	profile  *Profile
	problems []configs.Problem
}

// profile returns a profile, its problems, and fs.ErrNotExist if there is no
// file of that name.
func (l *library) profile(name string) (*Profile, []configs.Problem, error) {
	if p, ok := l.loaded[name]; ok {
		return p.profile, p.problems, nil
	}
	file, data, err := l.read(name)
	if err != nil {
		return nil, nil, err
	}
	p, problems := LoadProfile(file, data)
	if p != nil && p.Name != name {
		r := &reporter{problems: problems}
		r.fail(place{doc: p.doc, path: "profile"}, CodeProfile, "the file is "+quote(filepath.Base(file))+" but the profile is called "+quote(p.Name),
			"rename the file to "+p.Name+".yaml")
		p, problems = nil, r.problems
	}
	l.loaded[name] = &loadedProfile{p, problems}
	return p, problems, nil
}

func (l *library) read(name string) (file string, data []byte, err error) {
	for _, folder := range l.folders {
		file := filepath.Join(folder, name+".yaml")
		info, err := os.Stat(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil && info.Size() > configs.MaxFileSize {
			err = fmt.Errorf("%s is larger than %v", file, configs.Size(configs.MaxFileSize))
		}
		if err != nil {
			return "", nil, err
		}
		data, err := os.ReadFile(file)
		return file, data, err
	}
	data, err = fs.ReadFile(configs.Profiles(), "profiles/"+name+".yaml")
	return "profiles/" + name + ".yaml", data, err
}

// names lists every profile there is, sorted.
func (l *library) names() []string {
	var all []string
	add := func(entries []fs.DirEntry) {
		for _, e := range entries {
			if name, ok := strings.CutSuffix(e.Name(), ".yaml"); ok {
				all = append(all, name)
			}
		}
	}
	for _, folder := range l.folders {
		// A folder that cannot be read was reported when it was opened.
		entries, _ := os.ReadDir(folder)
		add(entries)
	}
	// The embedded folder is always there.
	entries, _ := fs.ReadDir(configs.Profiles(), "profiles")
	add(entries)
	slices.Sort(all)
	return slices.Compact(all)
}

package mapping

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"sluice/configs"
	"sluice/sources/register"
)

// deviceBuild is one device while the site is built. Its problems hurt the
// device alone.
type deviceBuild struct {
	*reporter
	b       *builder
	config  *DeviceConfig
	path    string
	profile *Profile
	order   register.Order // for points that do not say
	device  Device
	index   int // in Site.Devices
	specs   []namedSpec
	mqtt    bool // it is on an MQTT bus
	groups  configs.Ordered[Patterns]
}

// device builds the i-th device. Without a name of its own it is built for its
// problems only, so that they are told together with the one of the name.
func (b *builder) device(i int) {
	c := &b.cfg.Devices[i]
	path := configs.Index("devices", i)
	b.order = append(b.order, c.Name)
	named := b.deviceName(i)
	d := &deviceBuild{reporter: &reporter{device: c.Name, failed: b.doc.Failed(path)}, b: b, config: c, path: path, index: len(b.site.Devices)}
	d.device = Device{Name: c.Name, Profile: c.Profile, Bus: -1}
	d.settings()
	d.connection()
	d.mqttDevice()
	d.points()
	readings := d.readings()
	b.problems = append(b.problems, d.problems...)
	if !named {
		return
	}
	if d.failed {
		d.device.Disabled, d.device.Why = true, append(b.doc.Messages(path), why(d.problems)...)
		b.site.Devices = append(b.site.Devices, d.device)
		return
	}
	first := len(b.site.Points)
	for k := range readings {
		if readings[k].rule.factor >= 0 {
			readings[k].rule.factor += first
		}
		d.device.Points = append(d.device.Points, first+k)
	}
	b.site.Points = append(b.site.Points, readings...)
	b.site.Devices = append(b.site.Devices, d.device)
}

// deviceName reports whether the i-th device has a name that is good and its
// own. If not, the problem is the site's: two devices of one name cannot be
// told apart.
func (b *builder) deviceName(i int) bool {
	name, at := b.order[i], b.at(configs.Index("devices", i)+".name")
	if b.doc.Failed(at.path) || !checkName(&b.reporter, at, "device", name) {
		return false
	}
	if first := slices.Index(b.order, name); first < i {
		b.fail(at, CodeSameName, fmt.Sprintf("device %q is here a second time", name),
			fmt.Sprintf("the first is in line %d; rename one", b.at(configs.Index("devices", first)+".name").position().Line))
		return false
	}
	return true
}

func (d *deviceBuild) at(key string) place {
	return place{doc: d.b.doc, path: configs.Join(d.path, key)}
}

// settings checks what is said about the device itself.
func (d *deviceBuild) settings() {
	c, defaults := d.config, &d.b.cfg.Defaults
	d.loadProfile()
	d.device.Retries, d.device.Timeout = defaults.Retries, defaults.Timeout
	quirks := QuirksConfig{}
	if d.profile != nil {
		d.device.Make, d.device.Model = d.profile.Make, d.profile.Model
		quirks = d.profile.Quirks
		d.groups = d.profile.Groups
	}
	if c.Quirks != nil {
		quirks = *c.Quirks
	}
	d.device.Quirks = quirks.quirks(d.reporter, d.at("quirks"))
	if quirks.Timeout > 0 {
		d.device.Timeout = quirks.Timeout
	}
	if c.Retries != nil {
		checkRetries(d.reporter, d.at("retries"), *c.Retries)
		d.device.Retries = *c.Retries
	}
	d.order = orderOf(d.reporter, d.at("order"), c.Order)
	d.checkTags(d.b.doc, d.path+".tags", c.Tags)
	if c.Topic != "" {
		if topic, err := ParseTopic(c.Topic); err != nil {
			d.failTopic(d.at("topic"), err)
		} else if !topic.Uses("point") {
			d.fail(d.at("topic"), CodeTopic, "without {point} all points of the device have one topic", "for example "+DefaultTopic)
		}
	}
}

// loadProfile finds the profile. Its own errors disable the device and name
// the profile's file.
func (d *deviceBuild) loadProfile() {
	name := d.config.Profile
	if name == "" || d.b.doc.Failed(d.path+".profile") {
		return
	}
	if message, fix := nameProblem(name, false); message != "" {
		d.fail(d.at("profile"), CodeProfile, "profile "+message, fix)
		return
	}
	profile, problems, err := d.b.profiles.profile(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		d.fail(d.at("profile"), CodeProfile, "no profile "+quote(name), configs.DidYouMean(name, d.b.profiles.names()))
	case err != nil:
		d.fail(d.at("profile"), CodeProfile, "profile "+quote(name)+": "+plainError(err), "")
	}
	for _, p := range problems {
		p.Device = d.config.Name
		d.problems = append(d.problems, p)
		d.failed = d.failed || !p.Warning
	}
	d.profile = profile
}

// connection finds the bus and checks the unit id against it.
func (d *deviceBuild) connection() {
	c := d.config
	i := d.b.busOf(d.reporter, d.path, c)
	if i < 0 {
		d.failed = true
		d.mqtt = d.saysMQTT()
		d.unit(0)
		return
	}
	bus := &d.b.allBuses[i]
	if d.mqtt = bus.Kind == BusMQTT; d.mqtt {
		d.device.Bus, bus.used = i, true
		return
	}
	d.device.Bus = i
	bus.used = true
	if bus.timeout > 0 {
		d.device.Timeout = bus.timeout
	}
	if c.Timeout != nil {
		checkTimeout(d.reporter, d.at("timeout"), *c.Timeout)
		d.device.Timeout = *c.Timeout
	}
	d.unit(bus.Kind)
	d.sameMeter(bus)
	if d.profile != nil && d.profile.Serial != (SerialDefaults{}) {
		f := factory{device: c.Name, at: d.at("profile"), SerialDefaults: d.profile.Serial}
		bus.factory = append(bus.factory, f)
	}
	if quirk := d.device.Quirks.ConnectDelay; bus.ConnectDelay == 0 && quirk > 0 {
		bus.ConnectDelay = quirk
	}
}

// unit checks the unit id (Modbus over Serial Line V1.02 §2.2: 1 to 247; 0 is
// the broadcast, which nobody answers; Modbus TCP also uses 0 and 255 for the
// device at the address itself).
func (d *deviceBuild) unit(kind BusKind) {
	u := d.config.Unit
	switch {
	case u < 0 || u > 255 || kind != BusTCP && kind != 0 && u > 247:
		d.fail(d.at("unit"), CodeUnit, fmt.Sprintf("unit %d does not exist", u), "unit ids are 1 to 247; over Modbus TCP also 0 and 255")
	case u == 0 && kind != BusTCP && kind != 0:
		d.fail(d.at("unit"), CodeUnit, "unit 0 is the broadcast; no device answers it", "unit ids are 1 to 247")
	case u > 247 && u < 255:
		d.fail(d.at("unit"), CodeUnit, fmt.Sprintf("unit %d is reserved", u), "unit ids are 1 to 247; over Modbus TCP also 0 and 255")
	default:
		d.device.Unit = uint8(u)
	}
}

// sameMeter warns when another device reads the same unit with the same
// profile: most often the line was copied and the unit id forgotten.
func (d *deviceBuild) sameMeter(bus *busBuild) {
	c := d.config
	for _, m := range bus.meters {
		if m.unit == c.Unit && m.profile == c.Profile && c.Profile != "" {
			d.add(d.at("unit"), finding{code: CodeUnit, warning: true, message: fmt.Sprintf("device %q already reads unit %d of this bus as %s", m.device, c.Unit, c.Profile),
				fix: "give each its own unit id, or remove one"})
		}
	}
	bus.meters = append(bus.meters, meter{c.Name, c.Unit, c.Profile})
}

// points gathers the specs: those of the profile that are wanted, with the
// site's own laid over them, then the site's additions.
func (d *deviceBuild) points() {
	if d.profile != nil {
		// The profile was checked when it was loaded.
		d.specs = d.profile.specs(&reporter{})
		order := orderOf(&reporter{}, place{}, d.profile.Order)
		for i := range d.specs {
			f := &d.specs[i].spec.fields
			f.write.allowed = false // only the site file allows
			if f.order == nil && d.config.Order == "" {
				f.order = &order
			}
		}
	}
	base, said := baseOf(d.reporter, d.at("base"), d.config.Base)
	for i := range d.config.Points {
		name := d.config.Points[i].Key
		at := place{doc: d.b.doc, path: configs.Join(d.path+".points", name)}
		before := len(d.problems)
		checkPointName(d.reporter, at, name)
		s := d.parsePoint(&d.config.Points[i].Value, at, pointForm{base: base, baseSaid: said, mqtt: d.mqtt})
		s.failed = d.b.doc.Failed(at.path) || len(why(d.problems[before:])) > 0
		k := slices.IndexFunc(d.specs, func(n namedSpec) bool { return n.name == name })
		if k < 0 {
			d.specs = append(d.specs, namedSpec{name: name, spec: s, own: true})
			continue
		}
		s.fields = s.fields.over(d.specs[k].spec.fields)
		d.specs[k].spec, d.specs[k].own = s, true
	}
	d.filter()
	if len(d.specs) == 0 && !d.failed {
		d.fail(d.at("name"), CodeNoPoints, "the device has no points", "add profile: or points:")
	}
}

// filter keeps the points that only and skip leave. Points written in the site
// file are always kept.
func (d *deviceBuild) filter() {
	keep := func(n namedSpec) bool { return true }
	if d.config.Only != nil {
		only := d.matcher("only", d.config.Only)
		keep = func(n namedSpec) bool { return only(n.name) }
	}
	skip := func(string) bool { return false }
	if d.config.Skip != nil {
		skip = d.matcher("skip", d.config.Skip)
	}
	d.specs = slices.DeleteFunc(d.specs, func(n namedSpec) bool {
		return !n.own && (!keep(n) || skip(n.name))
	})
}

// matcher returns a function that tells whether a name fits any of patterns,
// and reports patterns that fit none.
func (d *deviceBuild) matcher(key string, patterns Patterns) func(string) bool {
	for i, p := range patterns {
		d.checkPattern(place{d.b.doc, listPath(d.at(key), i), 0}, p)
	}
	return func(name string) bool {
		return slices.ContainsFunc(patterns, func(p string) bool { return d.fits(p, name) })
	}
}

// fits reports whether a name fits a pattern, which may be a group's name.
func (d *deviceBuild) fits(pattern, name string) bool {
	if matches(pattern, name) {
		return true
	}
	group, ok := d.groups.Get(pattern)
	return ok && slices.ContainsFunc(group, func(p string) bool { return matches(p, name) })
}

// checkPattern reports a pattern that fits no point of the device.
func (d *deviceBuild) checkPattern(at place, pattern string) {
	names := make([]string, 0, len(d.specs))
	for i := range d.specs {
		if d.fits(pattern, d.specs[i].name) {
			return
		}
		names = append(names, d.specs[i].name)
	}
	if d.failed && len(d.specs) < len(d.config.Points)+1 {
		return // points that could not be read may be the ones
	}
	for _, g := range d.groups {
		names = append(names, g.Key)
	}
	d.fail(at, CodePattern, "no point is called "+quote(pattern), configs.DidYouMean(pattern, names))
}

// every returns the interval of a point: its own in the site file, then the
// device's pattern, then its own in the profile, then the device's, then the
// site's.
func (d *deviceBuild) every(n *namedSpec) (time.Duration, place) {
	_, ownEvery := n.spec.where["every"]
	if n.own && ownEvery && n.spec.fields.every != nil {
		return *n.spec.fields.every, n.spec.place("every")
	}
	for i := len(d.config.Every.Patterns) - 1; i >= 0; i-- {
		if p := &d.config.Every.Patterns[i]; d.fits(p.Key, n.name) {
			return p.Value, place{d.b.doc, configs.Join(d.path+".every", p.Key), 0}
		}
	}
	if n.spec.fields.every != nil {
		return *n.spec.fields.every, n.spec.place("every")
	}
	if d.config.Every.All != nil {
		return *d.config.Every.All, d.at("every")
	}
	return d.b.cfg.Defaults.Every, place{d.b.doc, "defaults.every", 0}
}

// baseOf checks a base and returns it, and whether it was said.
func baseOf(r *reporter, at place, base *int) (int, bool) {
	if base == nil {
		return 0, false
	}
	if *base != 0 && *base != 1 {
		r.fail(at, CodeAddress, fmt.Sprintf("base is 0 or 1, not %d", *base), "0: addresses as on the wire; 1: the manual calls the first register 1")
		return 0, false
	}
	return *base, true
}

func orderOf(r *reporter, at place, text string) register.Order {
	if text == "" {
		return register.ABCD
	}
	order, failure := parseOrder(text)
	if failure != nil {
		r.fail(at, failure.Code, failure.Message, failure.Fix)
	}
	return order
}

// The bounds of intervals. Below ten milliseconds no meter has anything new.
const (
	minEvery   = 10 * time.Millisecond
	maxEvery   = 31 * 24 * time.Hour
	maxTimeout = 5 * time.Minute
	maxRetries = 10
)

func checkEvery(r *reporter, at place, d time.Duration) {
	if d < minEvery || d > maxEvery {
		r.fail(at, CodeInterval, "every "+d.String()+" is out of range", "10ms to 31d")
	}
}

func checkTimeout(r *reporter, at place, d time.Duration) {
	if d < minEvery || d > maxTimeout {
		r.fail(at, CodeInterval, "timeout "+d.String()+" is out of range", "10ms to 5m")
	}
}

func checkRetries(r *reporter, at place, n int) {
	if n < 0 || n > maxRetries {
		r.fail(at, CodeInterval, fmt.Sprintf("retries %d is out of range", n), "0 to 10")
	}
}

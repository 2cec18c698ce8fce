package main

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"sluice/configs"
	"sluice/mapping"
	"sluice/sources"
	"sluice/sources/modbus/modbussim"
	"sluice/sources/register"
)

// checkFlags finds lines and addresses that can never be had, as they are
// written wrong.
func (sim *simulation) checkFlags(line modbussim.LineConfig) error {
	if err := line.Validate(); err != nil {
		return fail(exitUsage, err, "write the line as in --baud 9600 --format 8N1")
	}
	for flag, addresses := range map[string][]string{"--tcp": sim.tcp, "--rtu-tcp": sim.rtuTCP} {
		for _, address := range addresses {
			_, port, err := net.SplitHostPort(address)
			if err == nil {
				_, err = strconv.ParseUint(port, 10, 16)
			}
			if err != nil {
				return fail(exitUsage, fmt.Errorf("%s %s is not host:port with a port of 0 to 65535", flag, address),
					"write "+flag+" 127.0.0.1:5020, with IPv6 [::1]:5020; port 0 takes a free one")
			}
		}
	}
	return nil
}

// portError gives an address that cannot be had its exit code.
func portError(err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fail(exitBusy, err, "choose another port, or 0 for a free one")
	case errors.Is(err, syscall.EACCES):
		return fail(exitPermission, err, "choose a port from 1024 up")
	}
	return fail(exitField, err, "")
}

// loadProfile gives every unit the registers of the profile, with plausible
// values, and returns how many points there are. Registers between them read
// as 0, as with the meters themselves.
func (sim *simulation) loadProfile(server *modbussim.Server) (int, error) {
	model, err := profileSite(sim.what)
	if err != nil {
		return 0, err
	}
	for _, id := range sim.units {
		if id > 247 {
			return 0, fail(exitUsage, fmt.Errorf("unit %d is not 1 to 247", id), "")
		}
		unit, err := server.AddUnit(uint8(id), modbussim.UnitConfig{AllZero: true})
		if err != nil {
			return 0, fail(exitUsage, err, "")
		}
		for i := range model.Points {
			if err := fill(unit, model, i); err != nil {
				return 0, err
			}
		}
	}
	return len(model.Points), nil
}

// profileSite returns a site with one device of a profile, given by its name
// or its file.
func profileSite(profile string) (*mapping.Site, error) {
	cfg := mapping.Config{}
	name, folder := profile, ""
	if strings.HasSuffix(profile, ".yaml") {
		name, folder = strings.TrimSuffix(filepath.Base(profile), ".yaml"), filepath.Dir(profile)
	}
	text := fmt.Sprintf("site: simulation\ndevices:\n  - { name: meter, profile: %s, on: 127.0.0.1 }\n", strconv.Quote(name))
	if folder != "" {
		text += fmt.Sprintf("profiles: [%s]\n", strconv.Quote(folder))
	}
	doc, problems := configs.Decode("simulate", []byte(text), &cfg)
	model, more := mapping.Build(&cfg, doc)
	problems = configs.Sort(append(problems, more...))
	if configs.Errors(problems) > 0 {
		f := &failure{code: exitConfig, err: fmt.Errorf("profile %s: %s", profile, problems[0].Message), fix: problems[0].Fix}
		if problems[0].File != doc.File { // in the profile itself, not in the file made up here
			f.problems = problems
		} else {
			f.err = errors.New(problems[0].Message)
		}
		return nil, f
	}
	return model, nil
}

// fill defines the registers of a point in a unit: texts say what they are,
// numbers move as the engineering unit suggests.
func fill(unit *modbussim.Unit, model *mapping.Site, index int) error {
	r := &model.Points[index]
	if r.Type == register.String {
		text := "SIM " + r.Name
		return unit.SetPoint(r.Point, sources.String(text[:min(len(text), int(r.Bytes))]))
	}
	if len(r.Published) == 0 || r.Type == register.SunSSF {
		return unit.SetPoint(r.Point, sources.Int64(0))
	}
	p := r.Published[0]
	scale, offset := scaleOf(model, index)
	return unit.Generate(r.Point, modbussim.Raw(modbussim.PlausibleFor(p.Unit, p.Name), scale, offset))
}

// scaleOf finds scale and offset of a point by mapping two raw values; 1 and 0
// where the result is no number.
func scaleOf(model *mapping.Site, index int) (scale, offset float64) {
	const far = 10000
	mapped := func(raw int64) (float64, bool) {
		value := sources.Int64(raw)
		switch model.Points[index].Type {
		case register.Float32:
			value = sources.Float32(float32(raw))
		case register.Float64:
			value = sources.Float64(float64(raw))
		case register.Uint16, register.Uint32, register.Uint64, register.BCD16, register.BCD32:
			value = sources.Uint64(uint64(raw))
		}
		recs := mapping.NewMapper(model).Map([]sources.Sample{{Point: uint32(index), Value: value, Quality: sources.Good}})
		if len(recs) != 1 || !recs[0].Value.IsNumber() {
			return 0, false
		}
		return recs[0].Value.AsFloat64(), true
	}
	low, ok := mapped(0)
	high, also := mapped(far)
	if !ok || !also || high == low {
		return 1, 0
	}
	return (high - low) / far, low
}

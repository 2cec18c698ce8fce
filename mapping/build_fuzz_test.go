package mapping

import (
	"os"
	"testing"

	"sluice/configs"
)

// FuzzBuild runs the whole way from text to payloads: no file may panic, and
// what is not refused must give topics and points that hold together.
func FuzzBuild(f *testing.F) {
	broken, err := os.ReadFile("testdata/broken.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(broken))
	f.Add("site: s\ndevices:\n  - { name: d, on: h, profile: eastron-sdm120, only: [basic], every: { energy_*: 5s } }\n")
	f.Add("site: s\ndevices:\n  - name: d\n    on: h\n    points: { a: { at: holding 1, as: bits16, bits: { 0: x } }, b: 40001 int16 *0.1 }\n")
	f.Fuzz(func(t *testing.T, text string) {
		var cfg Config
		doc, problems := configs.Decode("site.yaml", []byte(text), &cfg)
		cfg.Profiles = nil // no folders of this machine
		site, more := Build(&cfg, doc)
		if configs.Refused(append(problems, more...)) {
			return
		}
		for i := range site.Points {
			r := &site.Points[i]
			if err := r.Validate(); err != nil || site.Devices[r.Device].Disabled || r.Every < minEvery || len(r.Topics) != len(r.Published) {
				t.Errorf("%q: reading %+v: %v", text, r, err)
			}
		}
		NewMapper(site)
		site.List()
		if _, err := site.Rate(EncoderConfig{Payload: PayloadJSON}); err != nil {
			t.Error(err)
		}
	})
}

package mapping

import (
	"bytes"
	"testing"

	"sluice/configs"
)

// load builds a site from text and fails the test if there is any problem.
func load(t testing.TB, text string) *Site {
	t.Helper()
	site, problems := tryLoad(text)
	if len(problems) > 0 {
		t.Fatalf("problems:\n%s", printed(problems))
	}
	return site
}

func tryLoad(text string) (*Site, []configs.Problem) {
	var cfg Config
	doc, problems := configs.Decode("site.yaml", []byte(text), &cfg)
	site, more := Build(&cfg, doc)
	return site, configs.Sort(append(problems, more...))
}

func printed(problems []configs.Problem) string {
	var b bytes.Buffer
	if err := configs.Print(&b, problems); err != nil {
		panic(err)
	}
	return b.String()
}

func TestSmallestSite(t *testing.T) {
	site := load(t, "site: plant-7\ndevices:\n  - name: main\n    profile: eastron-sdm630\n    on: /dev/ttyUSB0\n")
	if got := len(site.Points); got != 52 {
		t.Errorf("%d points, want 52", got)
	}
	if bus := site.Buses[0]; bus.Baud != 9600 || bus.Format.String() != "8N1" || bus.Address != "/dev/ttyUSB0" {
		t.Errorf("bus %+v, want 9600 8N1 on /dev/ttyUSB0", bus)
	}
	if got := site.Points[0].Topics[0]; got != "plant-7/main/voltage_l1" {
		t.Errorf("topic %q", got)
	}
}

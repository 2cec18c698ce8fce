package mapping

import (
	"io/fs"
	"testing"

	"sluice/configs"
)

func TestEverySampleSiteLoads(t *testing.T) {
	files, err := fs.Glob(configs.Sites(), "sites/*.yaml")
	if err != nil || len(files) < 3 {
		t.Fatalf("samples %v, %v", files, err)
	}
	for _, file := range files {
		t.Run(file, func(t *testing.T) {
			data, err := fs.ReadFile(configs.Sites(), file)
			if err != nil {
				t.Fatal(err)
			}
			site := load(t, string(data))
			if len(site.Points) == 0 || len(site.Disabled()) > 0 {
				t.Errorf("%d points, disabled %v", len(site.Points), site.Disabled())
			}
		})
	}
}

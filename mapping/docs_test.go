package mapping

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
)

func TestEveryExampleInTheDocumentationLoads(t *testing.T) {
	page, err := os.ReadFile("../docs/points-list.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := strings.Split(string(page), "```yaml\n")[1:]
	if len(examples) < 7 {
		t.Fatalf("only %d examples found", len(examples))
	}
	for i, example := range examples {
		text, _, _ := strings.Cut(example, "```")
		t.Run(fmt.Sprint(i+1), func(t *testing.T) {
			if site := load(t, text); len(site.Points) == 0 {
				t.Error("no points")
			}
		})
	}
}

func TestEveryCodeIsExplained(t *testing.T) {
	source, err := os.ReadFile("codes.go")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../docs/problems.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range strings.Fields(string(source)) {
		if code := strings.Trim(word, `"`); strings.HasPrefix(code, "SLUICE-CFG-") && !bytes.Contains(page, []byte("## "+code+" ")) {
			t.Errorf("%s is not in docs/problems.md", code)
		}
	}
}

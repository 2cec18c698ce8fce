package sparkplug

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestAssertionsAreDocumented: the table of docs/sparkplug.md names every
// assertion that TestNode shows, no other, and only tests that there are.
func TestAssertionsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../docs/sparkplug.md")
	if err != nil {
		t.Fatal(err)
	}
	shown, documented := make(map[string]bool), make(map[string]bool)
	for _, list := range [][]assertion{seenByHost(), sessions(), ofTemplates()} {
		for _, a := range list {
			for _, id := range strings.Fields(a.ids) {
				if shown[id] {
					t.Errorf("%s is shown twice", id)
				}
				shown[id] = true
			}
		}
	}
	_, table, _ := strings.Cut(string(page), "| assertion | test |")
	for _, row := range regexp.MustCompile(`(?m)^\| ([A-Za-z0-9-]+) \| ([a-z/]+)\.(Test\w+) \|$`).FindAllStringSubmatch(table, -1) {
		id, folder, test := row[1], row[2], row[3]
		if documented[id] {
			t.Errorf("%s stands twice in the table", id)
		}
		documented[id] = true
		switch node := folder == "sparkplug" && test == "TestNode"; {
		case node != shown[id]:
			t.Errorf("%s: TestNode shows it: %v, the table says %v", id, shown[id], node)
		case !node && !exists(t, folder, test):
			t.Errorf("%s: there is no %s.%s", id, folder, test)
		}
	}
	for id := range shown {
		if !documented[id] {
			t.Errorf("%s is not in the table", id)
		}
	}
	if lines := strings.Count(table, "\n| "); lines != len(documented) {
		t.Errorf("%d rows are not of the form | id | package.Test |", lines-len(documented))
	}
}

// exists reports whether a package has a test function.
func exists(t *testing.T, folder, test string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", folder, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "\nfunc "+test+"(t *testing.T)") {
			return true
		}
	}
	return false
}

package main

import (
	"bytes"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// mayImport is who may import whom inside this module: imports point towards
// the field, and only the programs see two stages at once. "*" is everything.
var mayImport = map[string][]string{
	"sources":                  {},
	"sources/register":         {"sources"},
	"sources/jsonpath":         {},
	"sources/mqtt":             {"sources", "sources/jsonpath", "sources/register"},
	"sources/hostclock":        {"sources"},
	"sources/modbus/link":      {"sources", "sources/register"},
	"sources/modbus/modbussim": {"sources", "sources/register"},
	"sources/modbus":           {"sources", "sources/register", "sources/modbus/link"},
	"configs":                  {},
	"mapping":                  {"sources", "sources/jsonpath", "sources/register", "configs"},
	"mapping/command":          {"mapping", "sources", "sources/register", "configs"},
	"sources/modbus/peertest":  {"configs", "mapping", "mapping/command", "sources", "sources/hostclock", "sources/register", "sources/modbus", "sources/modbus/link"},
	"localbroker/spool":        {"mapping", "sources", "configs"},
	"localbroker/certs":        {},
	"localbroker/births":       {"localbroker/wire"},
	"localbroker/trace":        {"localbroker/topics", "configs"},
	"localbroker/access":       {"configs", "localbroker/certs", "localbroker/topics", "localbroker/wire"},
	"localbroker/state":        {"localbroker/spool"},
	"localbroker/outbound":     {"localbroker/births", "localbroker/trace", "localbroker/wire", "localbroker/topics", "mapping", "sources"},
	"localbroker/board":        {"localbroker/births", "localbroker/outbound", "localbroker/wire", "localbroker/topics", "mapping", "sources"},
	"localbroker":              {"localbroker/outbound", "localbroker/board", "localbroker/access", "localbroker/wire", "localbroker/topics", "localbroker/births", "localbroker/trace", "localbroker/certs", "localbroker/state", "localbroker/spool", "mapping", "sources", "configs"},
	"localbroker/topics":       {},
	"localbroker/wire":         {"localbroker/topics"},
	"localbroker/peertest":     {"localbroker", "mapping", "sources", "configs"},
	"publish":                  {"mapping", "sources", "configs", "sparkplug"},
	"publish/cutproxy":         {},
	"publish/standin":          {"mapping", "localbroker/wire", "localbroker/topics"},
	"sparkplug":                {"mapping", "sources", "configs"},
	"dashboard":                {"mapping", "sources", "configs"},
	"cmd/sluice":               {"*"},
	"cmd/sluice/e2e":           {"*"},
	"cmd/bench":                {"*"},
}

// testsMayImport is what the tests of every package may import besides.
var testsMayImport = []string{"sources/modbus/modbussim", "publish/cutproxy", "publish/standin"}

const (
	moduleRoot   = "../.."
	maxLines     = 400
	maxTestLines = 600
)

// sourceFile is one parsed file of the module.
type sourceFile struct {
	path   string // from the root of the module
	folder string
	text   []byte
	fset   *token.FileSet
	tree   *ast.File
}

func (f *sourceFile) isTest() bool { return strings.HasSuffix(f.path, "_test.go") }

func (f *sourceFile) line(n ast.Node) int { return f.fset.Position(n.Pos()).Line }

// sourceFiles parses every Go file of the module. It reads the folders itself,
// as what `go list` says may come from its cache.
func sourceFiles(t *testing.T) []*sourceFile {
	t.Helper()
	var files []*sourceFile
	err := filepath.WalkDir(moduleRoot, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(moduleRoot, path)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if name := entry.Name(); rel != "." && (name[0] == '.' || name == "testdata" || name == "bin" || name == "dist") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		f := &sourceFile{path: filepath.ToSlash(rel), folder: filepath.ToSlash(filepath.Dir(rel)), fset: token.NewFileSet()}
		if f.text, err = os.ReadFile(path); err != nil {
			return err
		}
		f.tree, err = parser.ParseFile(f.fset, path, f.text, parser.ParseComments|parser.SkipObjectResolution)
		files = append(files, f)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 10 {
		t.Fatalf("only %d files found below %s", len(files), moduleRoot)
	}
	return files
}

func TestImportTable(t *testing.T) {
	for _, f := range sourceFiles(t) {
		allowed, ok := mayImport[f.folder]
		if !ok {
			t.Errorf("%s: package %s is not in the import table", f.path, f.folder)
			continue
		}
		for _, spec := range f.tree.Imports {
			path, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			target, inside := strings.CutPrefix(path, "sluice/")
			if !inside || target == f.folder || slices.Contains(allowed, "*") || slices.Contains(allowed, target) ||
				f.isTest() && slices.Contains(testsMayImport, target) {
				continue
			}
			t.Errorf("%s:%d: %s may not import %s", f.path, f.line(spec), f.folder, target)
		}
	}
}

func TestFormatting(t *testing.T) {
	for _, f := range sourceFiles(t) {
		formatted, err := format.Source(f.text)
		if err != nil {
			t.Errorf("%s: %v", f.path, err)
		} else if !bytes.Equal(formatted, f.text) {
			t.Errorf("%s is not formatted: gofmt -w %s", f.path, f.path)
		}
	}
}

func TestPackageComments(t *testing.T) {
	comments := make(map[string]int)
	for _, f := range sourceFiles(t) {
		if f.isTest() {
			continue
		}
		comments[f.folder] += 0
		if f.tree.Doc != nil && !strings.HasPrefix(f.tree.Doc.Text(), "go:build") {
			comments[f.folder]++
		}
	}
	for folder, n := range comments {
		if n != 1 {
			t.Errorf("package %s has %d package comments, want 1", folder, n)
		}
	}
}

func TestFileLength(t *testing.T) {
	for _, f := range sourceFiles(t) {
		limit := maxLines
		if f.isTest() {
			limit = maxTestLines
		}
		if lines := bytes.Count(f.text, []byte("\n")); lines > limit {
			t.Errorf("%s has %d lines, want at most %d", f.path, lines, limit)
		}
	}
}

func TestNoInitAndNoStrayPanic(t *testing.T) {
	for _, f := range sourceFiles(t) {
		for _, decl := range f.tree.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s:%d: func init", f.path, f.line(fn))
			}
			if f.isTest() || fn.Body == nil || strings.Contains(fn.Doc.Text(), "panic") {
				continue // a function that panics on purpose says so in its comment
			}
			ast.Inspect(fn.Body, func(n ast.Node) bool {
				if call, ok := n.(*ast.CallExpr); ok {
					if name, ok := call.Fun.(*ast.Ident); ok && name.Name == "panic" {
						t.Errorf("%s:%d: %s panics and does not say so in its comment", f.path, f.line(call), fn.Name.Name)
					}
				}
				return true
			})
		}
	}
}

func TestNoSleepInTests(t *testing.T) {
	files := sourceFiles(t)
	bubbles := make(map[string]bool) // folders whose tests run in synctest, where a sleep takes no time
	for _, f := range files {
		if slices.ContainsFunc(f.tree.Imports, func(s *ast.ImportSpec) bool { return s.Path.Value == `"testing/synctest"` }) {
			bubbles[f.folder] = true
		}
	}
	for _, f := range files {
		if !f.isTest() || bubbles[f.folder] {
			continue
		}
		ast.Inspect(f.tree, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == "Sleep" {
				if pkg, ok := sel.X.(*ast.Ident); ok && pkg.Name == "time" {
					t.Errorf("%s:%d: a test sleeps", f.path, f.line(sel))
				}
			}
			return true
		})
	}
}

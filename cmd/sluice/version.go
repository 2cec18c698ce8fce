package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"sluice/publish"
)

// buildInfo says what program this is.
type buildInfo struct {
	Version string    `json:"version"`
	Commit  string    `json:"commit,omitempty"`
	Built   time.Time `json:"built,omitzero"` // time of the commit
	Go      string    `json:"go"`
	Target  string    `json:"target"`
}

// thisBuild reads what the Go tools have recorded in the program: the version
// is the git tag, or one made of the commit and its time.
func thisBuild() buildInfo {
	b := buildInfo{Version: "unknown", Go: runtime.Version(), Target: runtime.GOOS + "/" + runtime.GOARCH,
		Built: publish.BuildTime()}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if info.Main.Version != "" {
		b.Version = info.Main.Version
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" {
			b.Commit = setting.Value
		}
	}
	return b
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Show version and build",
		Args:  cobra.NoArgs,
		RunE: a.wrap(func(context.Context, []string) (result, error) {
			b := thisBuild()
			return result{data: b, human: func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "sluice %s %s %s\n", b.Version, b.Target, b.Go)
				return err
			}}, nil
		}),
	}
}

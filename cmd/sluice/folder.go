package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"sluice/configs"
)

// folder is the data folder that commands work on.
type folder struct {
	config string // site file
	data   string // data folder; empty: that of the site file
}

// flags gives c and its commands the flags of the folder.
func (f *folder) flags(c *cobra.Command) {
	c.PersistentFlags().StringVarP(&f.config, "config", "c", defaultSite, "site file, which names the data folder")
	c.PersistentFlags().StringVar(&f.data, "data", "", "data folder, in the place of that of the site file")
	_ = c.MarkPersistentFlagFilename("config", "yaml", "yml") // fails only for a flag that is not there
	_ = c.MarkPersistentFlagDirname("data")                   // likewise
}

// find returns the path of the folder, and the name of the site as the site
// file says it; with --data the file need not be there. Other problems of the
// file are the business of check.
func (f *folder) find() (dir, name string, err error) {
	dir = f.data
	text, err := os.ReadFile(f.config)
	switch {
	case err == nil:
		var file siteFile
		doc, _ := configs.Decode(f.config, text, &file)
		if dir == "" && doc.Position("") == (configs.Position{}) {
			return "", "", fail(exitConfig, fmt.Errorf("%s is not a usable site file", f.config), "see what is wrong with it: sluice check "+f.config)
		}
		if name = file.Mapping.Site; dir == "" {
			dir = (&site{dir: filepath.Dir(f.config)}).resolve(file.Buffer.Dir)
		}
	case dir != "" && errors.Is(err, fs.ErrNotExist): // then it is not needed
	case errors.Is(err, fs.ErrPermission):
		return "", "", fail(exitPermission, err, "run the command as the user of the gateway, or with sudo")
	case dir == "":
		return "", "", fail(exitConfig, err, "name the site file with -c, or the data folder with --data")
	}
	return dir, name, nil
}

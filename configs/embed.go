package configs

import "embed"

//go:embed profiles/*.yaml
var profiles embed.FS

//go:embed sites/*.yaml
var sites embed.FS

// Profiles returns the built-in meter profiles: files <name>.yaml in the folder
// "profiles".
func Profiles() embed.FS { return profiles }

// Sites returns the sample site files: files <name>.yaml in the folder "sites".
func Sites() embed.FS { return sites }

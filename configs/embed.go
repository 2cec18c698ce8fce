package configs

import "embed"

//go:embed profiles/*.yaml
var profiles embed.FS

// Profiles returns the built-in meter profiles: files <name>.yaml in the folder
// "profiles".
func Profiles() embed.FS { return profiles }

package configs

import "path/filepath"

// Path names a file. A relative one in a file that is decoded begins at the
// folder of that file, whatever the working folder is: Decode joins both.
type Path string

// besideFile returns the Path that text means in file.
func besideFile(file, text string) Path {
	if text == "" || filepath.IsAbs(text) {
		return Path(text)
	}
	return Path(filepath.Join(filepath.Dir(file), text))
}

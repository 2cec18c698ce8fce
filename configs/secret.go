package configs

import (
	"regexp"
	"strings"
)

var (
	// secretKey finds a key whose name says that its value is secret, with the
	// colon and what stands before the value: password, passwd, passphrase,
	// secret or token, also at the end of a longer name such as api_token.
	// Keys such as password_file name a place, and no secret.
	secretKey = regexp.MustCompile(`(?i)(?:^|[\s{,"'_-])(?:password|passwd|passphrase|secret|token)["']?\s*:\s*`)
	// quotedText is a text in quotes, closed or not.
	quotedText = regexp.MustCompile(`^(?:"(?:[^"\\]|\\.)*"?|'(?:[^']|'')*'?)`)
	// nextKey ends a text without quotes in { }. A comma alone does not: it
	// may be part of the secret, whatever YAML makes of it.
	nextKey = regexp.MustCompile(`,\s*[\w-]+\s*:(?:\s|$)|}`)
	// userInfo is a password in an address: mqtts://user:password@host, with or
	// without the scheme.
	userInfo = regexp.MustCompile(`((?:://|[\s"'\[{,])[^\s/:@"'\[{,]*:)([^\s/]+)(@)`)
)

// maskSecrets returns a line of a file with the values of secret keys, and
// passwords in addresses, replaced by as many asterisks, so that places in it
// stay right.
func maskSecrets(line string) string {
	line = userInfo.ReplaceAllStringFunc(line, func(match string) string {
		parts := userInfo.FindStringSubmatch(match)
		return parts[1] + asterisks(parts[2]) + parts[3]
	})
	for from := 0; ; {
		at := secretKey.FindStringIndex(line[from:])
		if at == nil {
			return line
		}
		start := from + at[1]
		value := line[start:]
		if quoted := quotedText.FindString(value); quoted != "" {
			value = quoted
		} else if end := nextKey.FindStringIndex(value); end != nil {
			value = value[:end[0]]
		}
		masked := asterisks(value)
		line = line[:start] + masked + line[start+len(value):]
		from = start + len(masked)
	}
}

// maskAt hides a line from a column on: it holds the value of a secret key that
// stands in a line above.
func maskAt(line string, column int) string {
	if masked := maskSecrets(line); masked != line || column < 1 {
		return masked
	}
	runes := []rune(line)
	column = min(column-1, len(runes))
	return string(runes[:column]) + asterisks(string(runes[column:]))
}

// asterisks returns one for each character of s.
func asterisks(s string) string { return strings.Repeat("*", len([]rune(s))) }

// isSecret reports whether the last key of a path names a secret.
func isSecret(path string) bool {
	return secretKey.MatchString(path[strings.LastIndexByte(path, '.')+1:] + ":")
}

package access

import (
	"fmt"
	"strings"

	"sluice/localbroker/certs"
	"sluice/localbroker/topics"
)

// names are what the tokens of the users file stand for.
type names struct{ user, client, cert string }

// of returns what a token stands for.
func (n *names) of(token byte) string {
	switch token {
	case 'u':
		return n.user
	case 'c':
		return n.client
	case 'n':
		return n.cert
	}
	return "%"
}

// expand puts names in the place of the tokens. A name that is empty, or could
// mean more than itself in a filter or a pattern, makes ok false: the text then
// allows nothing.
func (n *names) expand(text string) (expanded string, ok bool) {
	before, after, found := strings.Cut(text, "%")
	if !found {
		return text, true
	}
	var b strings.Builder
	for ; found; before, after, found = strings.Cut(after, "%") {
		b.WriteString(before)
		value := n.of(after[0]) // checkTokens has looked
		if !plain(value) {
			return "", false
		}
		b.WriteString(value)
		after = after[1:]
	}
	b.WriteString(before)
	return b.String(), true
}

// expandAll returns those texts whose tokens could be replaced.
func (n *names) expandAll(texts []string) []string {
	var all []string
	for _, text := range texts {
		if expanded, ok := n.expand(text); ok {
			all = append(all, expanded)
		}
	}
	return all
}

// plain reports whether a name stands for one topic level and itself only. $ is
// not plain, as it could make a topic of the server or a shared filter.
func plain(name string) bool {
	return name != "" && !strings.ContainsAny(name, "/+#*$\x00")
}

// checkTokens reports a % that is no token.
func checkTokens(text string) error {
	for {
		_, after, found := strings.Cut(text, "%")
		if !found {
			return nil
		}
		if after == "" || !strings.ContainsRune("ucn%", rune(after[0])) {
			return fmt.Errorf("in %q is a %% that is none of %%u (user), %%c (client identifier), %%n (certificate) and %%%%", text)
		}
		text = after[1:]
	}
}

// checkFilter reports why text is no filter of the users file.
func checkFilter(text string) error {
	if err := checkTokens(text); err != nil {
		return err
	}
	sample := names{"u", "c", "n"}
	filter, _ := sample.expand(text) // sample is plain
	if _, group, _ := topics.Unshared(filter); !topics.FilterValid(filter) || group != "" {
		return fmt.Errorf("%q is no topic filter", text)
	}
	if topics.Dollar(filter) {
		return fmt.Errorf("%q begins with $: those topics are read by administrators (admin: true), and published by nobody", text)
	}
	return nil
}

// like reports whether a name has a pattern, in which * stands for any text.
func like(pattern, name string) bool {
	first, rest, star := strings.Cut(pattern, "*")
	name, found := strings.CutPrefix(name, first)
	if !star || !found {
		return found && name == ""
	}
	for {
		var part string
		part, rest, star = strings.Cut(rest, "*")
		if !star {
			return strings.HasSuffix(name, part)
		}
		_, name, found = strings.Cut(name, part)
		if !found {
			return false
		}
	}
}

// certName returns the name of a client certificate for %n and the patterns of
// the users file, empty if it has none that can be used: the one under which it
// is on the list, as somebody here chose that, or else its common name.
func certName(listed, commonName string) string {
	name := commonName
	if listed != "" {
		name = listed
	}
	if certs.CheckClientName(name) != nil || !plain(name) {
		return ""
	}
	return name
}

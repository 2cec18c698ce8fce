package configs

import "strings"

// Suggest returns the entry of known that somebody who wrote word most likely
// meant, or "" if none is near: at most a third of the letters wrong, where two
// neighbours exchanged count as one.
func Suggest(word string, known []string) string {
	if word == "" || len(word) > 64 {
		return ""
	}
	best, bestDistance := "", max(1, len(word)/3)+1
	for _, k := range known {
		if strings.EqualFold(k, word) {
			return k
		}
		if d := distance(strings.ToLower(word), strings.ToLower(k)); d < bestDistance {
			best, bestDistance = k, d
		}
	}
	return best
}

// DidYouMean returns a fix for an unknown word: the nearest known one, or, with
// few known words, all of them.
func DidYouMean(word string, known []string) string {
	if s := Suggest(word, known); s != "" {
		return `did you mean "` + s + `"?`
	}
	if len(known) > 0 && len(known) <= 40 {
		return "known here: " + strings.Join(known, ", ")
	}
	return ""
}

// distance is the optimal string alignment distance in bytes: insertions,
// deletions, substitutions and exchanges of neighbours, each counting one.
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

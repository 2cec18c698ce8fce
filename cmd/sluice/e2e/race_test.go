//go:build race

package e2e

// raced says that the race detector is on, which makes samples ten times as
// expensive.
const raced = true

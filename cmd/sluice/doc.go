// Command sluice is the gateway: it reads the site file, builds sources,
// mapping, spool, local broker, upstreams and the HTTP endpoint from it, and
// runs them in the order in which data passes. What the stages do is theirs;
// this package decides only who talks to whom, and how the process starts,
// reloads and ends.
package main

// Package access decides who may come into the local broker and who may read
// and publish what. Users files and client certificates come in, with what a
// client says in its CONNECT; an Identity, or the reason of a refusal, goes out,
// and an answer for every topic. Without a rule that allows, the answer is no.
// It opens no connection and never logs a password or a hash.
package access

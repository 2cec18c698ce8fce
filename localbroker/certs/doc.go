// Package certs is the certificate authority of the local broker and the list
// of the client certificates that it lets in. Names and files of certificates
// come in; a server certificate, client certificates with their keys, and a
// verdict on every client certificate go out. It never keeps the key of a
// client, never writes over a key that it was not told to replace, and opens no
// connection.
//
// The folder, mode 0700, holds files of mode 0600, each replaced as a whole:
//
//	ca.pem               certificate of the authority, its issuers, its key
//	ca-<thumbprint>.pem  what ca.pem held before it was replaced
//	server.pem           server certificate made here, its issuers, its key
//	server-imported.pem  the one that was imported; it goes first
//	clients.json         client certificates that are known here
//	revoked.json         those that are revoked; entries stay for ever
//	lock                 held while one of the others is changed
//
// Certificate and key share a file, so that no power cut leaves a certificate
// beside the key of another.
package certs

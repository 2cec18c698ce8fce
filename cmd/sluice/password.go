package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// askPassword reads a password from the terminal in, twice and unseen, or the
// first line of what is piped in. name stands in the prompt on errs.
func askPassword(in *os.File, errs io.Writer, name string) (string, error) {
	fd := int(in.Fd())
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil { // no terminal
		text, err := bufio.NewReader(in).ReadString('\n')
		if text == "" {
			return "", fail(exitUsage, fmt.Errorf("read the password: %w", err), "type it, or name a file with --password-file")
		}
		return strings.TrimRight(text, "\r\n"), nil
	}
	// Byte by byte, so that the keys that end the program restore the terminal.
	silent := *before
	silent.Lflag &^= unix.ECHO | unix.ICANON | unix.ISIG
	silent.Cc[unix.VMIN], silent.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &silent); err != nil {
		return "", fmt.Errorf("make the terminal silent: %w", err)
	}
	defer func() { _ = unix.IoctlSetTermios(fd, unix.TCSETS, before) }() // there is nothing else to do
	keys := bufio.NewReader(in)
	prompt := func(text string) (string, error) {
		_, _ = io.WriteString(errs, text)                    // a prompt that nobody sees
		defer func() { _, _ = io.WriteString(errs, "\n") }() // likewise
		return readKeys(keys)
	}
	first, err := prompt("Password of " + name + ": ")
	if err != nil {
		return "", err
	}
	second, err := prompt("The same again: ")
	if err == nil && first != second {
		err = fail(exitUsage, errors.New("the two passwords differ"), "try again")
	}
	return first, err
}

// readKeys reads the keys of one line: backspace takes back a character,
// control-C and control-D give up.
func readKeys(keys io.ByteReader) (string, error) {
	var line []byte
	for {
		key, err := keys.ReadByte()
		switch {
		case err != nil || key == 3 || key == 4:
			return "", fail(exitUsage, errors.New("no password was given"), "nothing was changed")
		case key == '\r' || key == '\n':
			return string(line), nil
		case key == 8 || key == 127:
			_, size := utf8.DecodeLastRune(line)
			line = line[:len(line)-size]
		default:
			line = append(line, key)
		}
	}
}

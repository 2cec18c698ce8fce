package link

import (
	"errors"
	"testing"
)

var fuzzRequests = [][]byte{
	{3, 0, 0, 0, 10}, {1, 0, 0, 0, 13}, {4, 0, 0, 0, 125}, {5, 0, 7, 0xFF, 0}, {6, 0, 7, 0, 42}, {15, 0, 0, 0, 2, 1, 3},
	{16, 0, 7, 0, 1, 2, 0, 42}, {22, 0, 4, 0, 0xF2, 0, 0x25}, {23, 0, 0, 0, 2, 0, 0, 0, 1, 2, 0, 7}, {24, 0, 7}, {43, 14, 1, 0},
	{43, 13, 1}, {17}, {7}, {8, 0, 0, 0xA5, 0x37}, {11}, {12}, {20, 7, 6, 0, 4, 0, 1, 0, 2}, {100, 1, 2}, {3}, {8},
}

func FuzzScan(f *testing.F) {
	for i := range fuzzRequests {
		f.Add(uint8(i), frameRTU(1, 3, 2, 0, 1))
	}
	f.Add(uint8(0), frameRTU(1, replyPDU(1, fuzzRequests[0])...))
	f.Add(uint8(0), append([]byte{0xFF, 1, 3, 20}, frameRTU(1, 0x83, 2)...))
	f.Fuzz(func(t *testing.T, which uint8, received []byte) {
		received = received[:min(len(received), maxReceived)]
		request := fuzzRequests[int(which)%len(fuzzRequests)]
		s := scanner{codec: rtuCodec(1), adu: frameRTU(1, request...), request: request}
		for n := range len(received) + 1 {
			last := n == len(received)
			reply, end := s.scan(received[:n], last)
			if reply == nil {
				if end != 0 || last && s.failure(received) == nil {
					t.Fatal("neither a reply nor a failure")
				}
				continue
			}
			if end > n || string(reply) != string(received[end-2-len(reply):end-2]) || checkReply(request, reply) != nil && !refused(request, reply) {
				t.Fatalf("% x passes for a reply to % x", reply, request)
			}
			return
		}
	})
}

func refused(request, reply []byte) bool {
	return len(reply) == 2 && reply[0] == request[0]|exceptionFlag
}

func FuzzCheckReply(f *testing.F) {
	for i, request := range fuzzRequests {
		f.Add(uint8(i), request)
		f.Add(uint8(i), []byte{request[0] | 0x80, 2})
	}
	f.Add(uint8(10), []byte{43, 14, 1, 1, 0, 0, 2, 0, 1, 'A', 1, 2, 'B', 'C'})
	f.Fuzz(func(t *testing.T, which uint8, reply []byte) {
		request := fuzzRequests[int(which)%len(fuzzRequests)]
		n := lengthOf(request, reply)
		if n < lengthInvalid || n > MaxPDU {
			t.Fatalf("length %d", n)
		}
		err := checkReply(request, reply)
		var exception *Exception
		if errors.As(err, &exception) != (err != nil && refused(request, reply)) {
			t.Fatalf("% x to % x: %v", reply, request, err)
		}
		if want, ok := dataBytes(request); err == nil && ok && len(reply) != 2+want {
			t.Fatalf("%d bytes of data, want %d", len(reply)-2, want)
		}
	})
}

func FuzzMBAP(f *testing.F) {
	f.Add(frameTCP(1, 1, 3, 2, 0, 1))
	f.Add([]byte{0, 1, 0, 0, 0xFF, 0xFF, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := mbapSize(b)
		if err != nil && !errors.Is(err, ErrFrame) || n != 0 && (n < headerTCP+1 || n > maxTCP) {
			t.Fatalf("%d %v", n, err)
		}
	})
}

func TestReplyLengthOfEveryFunction(t *testing.T) {
	tests := map[string]struct {
		request, reply []byte
		want           replyLength
	}{
		"read 13 coils":             {[]byte{1, 0, 0, 0, 13}, []byte{1, 2, 0xCD, 0x0B}, 4},
		"read 3 registers":          {[]byte{3, 0, 0x6B, 0, 3}, []byte{3, 6, 2, 0x2B, 0, 0, 0, 0x64}, 8},
		"write coil":                {[]byte{5, 0, 0xAC, 0xFF, 0}, []byte{5, 0, 0xAC, 0xFF, 0}, 5},
		"write register":            {[]byte{6, 0, 1, 0, 3}, []byte{6, 0, 1, 0, 3}, 5},
		"write coils":               {[]byte{15, 0, 0x13, 0, 10, 2, 0xCD, 1}, []byte{15, 0, 0x13, 0, 10}, 5},
		"write registers":           {[]byte{16, 0, 1, 0, 2, 4, 0, 10, 1, 2}, []byte{16, 0, 1, 0, 2}, 5},
		"mask write":                {[]byte{22, 0, 4, 0, 0xF2, 0, 0x25}, []byte{22, 0, 4, 0, 0xF2, 0, 0x25}, 7},
		"read and write":            {[]byte{23, 0, 3, 0, 2, 0, 14, 0, 1, 2, 0, 0xFF}, []byte{23, 4, 0, 0xFE, 0x0A, 0xCD}, 6},
		"FIFO queue":                {[]byte{24, 4, 0xDE}, []byte{24, 0, 6, 0, 2, 1, 0xB8, 0x12, 0x84}, 9},
		"report server id":          {[]byte{17}, []byte{17, 3, 1, 0xFF, 'x'}, 5},
		"identification":            {[]byte{43, 14, 1, 0}, []byte{43, 14, 1, 1, 0, 0, 2, 0, 1, 'A', 1, 2, 'B', 'C'}, 14},
		"identification, head only": {[]byte{43, 14, 1, 0}, []byte{43, 14, 1, 1, 0, 0, 2}, lengthPending},
		"identification too long":   {[]byte{43, 14, 1, 0}, []byte{43, 14, 1, 1, 0, 0, 1, 0, 250}, lengthInvalid},
		"exception":                 {[]byte{43, 14, 1, 0}, []byte{0xAB, 1}, 2},
		"unknown function":          {[]byte{100}, []byte{100, 1, 2, 3}, lengthUnknown},
		"other function":            {[]byte{3, 0, 0, 0, 1}, []byte{4, 2}, lengthInvalid},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := lengthOf(test.request, test.reply); got != test.want {
				t.Errorf("got %d, want %d", got, test.want)
			}
			if err := checkReply(test.request, test.reply); test.want > 2 && err != nil {
				t.Errorf("refused: %v", err)
			}
		})
	}
}

func TestWriteRepliesMustRepeatTheRequest(t *testing.T) {
	for _, request := range fuzzRequests[3:8] {
		reply := append([]byte(nil), request[:expectedLength(request)]...)
		for i := 1; i < len(reply); i++ {
			reply[i] ^= 1
			if err := checkReply(request, reply); !errors.Is(err, ErrFrame) {
				t.Errorf("% x passes for the reply to % x", reply, request)
			}
			reply[i] ^= 1
		}
		if err := checkReply(request, reply); err != nil {
			t.Error(err)
		}
	}
}

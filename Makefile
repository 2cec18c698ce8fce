# What a developer and the machine that checks a change run. Everything but
# test-peers needs only Go, make and git.

GO        ?= go
FUZZTIME  ?= 30s
# Files of tests that need installed peers (Mosquitto, libmodbus, pymodbus, QEMU).
PEER_TESTS := $(shell grep -rl --include='*_test.go' '^//go:build.*peers' . 2>/dev/null)
# Files of tests that have a long version.
LONG_TESTS := $(shell grep -rl --include='*_test.go' SLUICE_TORTURE . 2>/dev/null)

# The race detector needs a C compiler. Without one the tests run all the same.
RACE := $(shell command -v "$$($(GO) env CC)" >/dev/null 2>&1 && echo -race)

.PHONY: build test test-peers interop peers torture bench fuzz cross demo clean

# Static and stripped. Go itself puts in the version: the git tag, or commit and time.
RELEASE := -buildvcs=auto -trimpath -ldflags '-s -w'

build:
	CGO_ENABLED=0 $(GO) build $(RELEASE) -o bin/sluice ./cmd/sluice

test:
	@[ -n "$(RACE)" ] || echo "no C compiler: testing without the race detector"
	$(GO) vet ./...
	$(GO) test $(RACE) -timeout 10m ./...

# Against the real peers, which are installed first. Nothing is skipped. Needs
# root on Debian: file systems are mounted and their power is cut.
test-peers: peers
	$(GO) vet -tags peers ./...
	$(GO) test -tags peers -count 1 -timeout 30m $(sort $(dir $(PEER_TESTS)))

# The public interoperability suites of MQTT, from a copy beside this one:
# make interop SUITE=../paho.mqtt.testing. See docs/interop.md.
interop:
	SLUICE_INTEROP=$(abspath $(SUITE)) $(GO) test -tags interop -count 1 -v -run Interop ./localbroker/peertest

# gcc and libmodbus-dev make the libmodbus server, python3-venv the one of
# pymodbus and the client of paho; qemu-user-static runs the cross builds;
# e2fsprogs makes ext4; libnss3-tools has Chromium trust a certificate. Node
# brings npm.
peers:
	apt-get update -q
	DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
		mosquitto mosquitto-clients libmodbus-dev mbpoll socat gcc libc6-dev pkg-config \
		python3 python3-venv qemu-user-static e2fsprogs mount openssl ca-certificates \
		chromium libnss3-tools util-linux coreutils
	command -v npm >/dev/null || DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends npm

# The durability and outage tests at full length, power cuts and Mosquitto
# included: about an hour. Needs root on Debian.
torture: peers
	SLUICE_TORTURE=1 $(GO) test $(RACE) -count 1 -timeout 1h -v -run Fuzzed ./localbroker/peertest
	SLUICE_TORTURE=1 $(GO) test -tags peers -count 1 -timeout 4h -v $(sort $(dir $(LONG_TESTS)))

# Every row of the footprint and speed table, on this machine. The rows of the
# local broker need Mosquitto.
bench: build
	$(GO) run ./cmd/bench -binary bin/sluice

# Every fuzz target for FUZZTIME each.
fuzz:
	@set -e; grep -rno --include='*_test.go' '^func Fuzz[A-Za-z0-9]*' . | while IFS=: read -r file line func; do \
		echo "$$(dirname $$file) $${func#func }"; \
		$(GO) test -run '^$$' -fuzz "^$${func#func }\$$" -fuzztime $(FUZZTIME) "$$(dirname $$file)/"; \
	done

# Static programs for the boards the gateway runs on, with their sizes.
CROSS := linux-amd64 linux-arm64 linux-armv7 linux-armv6 linux-mipsle
linux-amd64:  TARGET = GOARCH=amd64
linux-arm64:  TARGET = GOARCH=arm64
linux-armv7:  TARGET = GOARCH=arm GOARM=7
linux-armv6:  TARGET = GOARCH=arm GOARM=6
linux-mipsle: TARGET = GOARCH=mipsle GOMIPS=softfloat

.PHONY: $(CROSS)
$(CROSS):
	CGO_ENABLED=0 GOOS=linux $(TARGET) $(GO) build $(RELEASE) -o dist/sluice-$@ ./cmd/sluice

cross: $(CROSS)
	@for f in $(CROSS:%=dist/sluice-%); do \
		printf '%-26s %6d KiB' $$f $$(( $$(wc -c < $$f) / 1024 )); \
		if command -v xz >/dev/null; then printf ', %5d KiB as xz' $$(( $$(xz -9 -c $$f | wc -c) / 1024 )); fi; echo; \
	done | tee dist/sizes.txt

# The whole path in a terminal, with an outage and a kill in the middle: a minute.
demo: build
	bin/sluice demo

clean:
	rm -rf bin dist

package command

import (
	"encoding/json"
	"strconv"
	"time"

	"sluice/sources"
)

// Origin is who gives a command.
type Origin struct {
	Kind Kind
	// Name is what the origin has proved to be: a user of the local broker, an
	// upstream. A command of nobody ("") is refused.
	Name string
	// Client is the client identifier or address, for the audit log.
	Client string
}

// Kind is the way a command came.
type Kind string

// The kinds.
const (
	Local     Kind = "local"     // a client of the local broker
	Upstream  Kind = "upstream"  // an MQTT topic of an upstream
	Sparkplug Kind = "sparkplug" // NCMD or DCMD of a host
	API       Kind = "api"       // the HTTP API
	CLI       Kind = "cli"       // the command line
)

// Request is one command.
type Request struct {
	Origin Origin
	// Device and Point are names as in the site file; of a bit, the point is
	// the one that is published: alarms/high.
	Device, Point string
	// Value is in the unit of the point. For a point with a map it is a text of
	// the map or its number; for a bool also 0 or 1.
	Value sources.Value
	// ID comes back with the result. A second command of the same origin with
	// the same ID is refused; without an ID that cannot be told.
	ID string
	// Sent is when the sender gave the command, Expires when it ends, both by
	// the wall clock; TTL is how long it may wait from now. Zero: not said. The
	// expiry of the point holds besides.
	Sent, Expires time.Time
	TTL           time.Duration
	// Retained says that the message was a stored one, of whatever age.
	Retained bool
	// Confirmed says that a person was asked.
	Confirmed bool
	// Timed refuses the command if it says neither Sent nor Expires: it may
	// have waited on the way.
	Timed bool
	// Named says that the message named the point, as its topic does not; then
	// the answer does so, too.
	Named bool
	// Wrong says why the message cannot be read; "" if it can.
	Wrong string
}

// Code says what became of a command. CodeException is followed by a space and
// the number: "exception 2".
type Code string

// The codes. A code once released keeps its meaning; docs/commands.md has the
// same table.
const (
	OK             Code = "ok"                // written, and read back where the point is
	BadRequest     Code = "bad-request"       // the message cannot be read
	UnknownPoint   Code = "unknown-point"     // no such point
	NotWritable    Code = "not-writable"      // the point has no write
	Unauthorised   Code = "unauthorised"      // nobody has shown who it is
	BadValue       Code = "bad-value"         // a text for a number, or the like
	OutOfRange     Code = "out-of-range"      // beyond min and max, or not one of the values
	BadStep        Code = "step"              // between two steps, or finer than the register
	Unconfirmed    Code = "confirm"           // the point asks for "confirm": true
	Expired        Code = "expired"           // too old, when it came or when its turn came
	Untimed        Code = "untimed"           // it does not say when it was given, and may have waited on the way
	NoClock        Code = "clock"             // it names a time, and the gateway's clock is not right yet
	Retained       Code = "retained"          // a retained message
	Duplicate      Code = "duplicate"         // the same id again
	TooFast        Code = "rate"              // too soon after the last write
	Busy           Code = "busy"              // too many commands wait
	DeviceOffline  Code = "device-offline"    // the device does not answer; nothing was sent
	CodeException  Code = "exception"         // the device refused
	NoReply        Code = "no-reply"          // sent; it is not known whether the device took it
	ReadbackDiffer Code = "readback-mismatch" // the device shows another value
	Shutdown       Code = "shutdown"          // the gateway stops, or takes a new site file
	AuditFailed    Code = "audit"             // the audit log cannot be written
)

// Result is what became of a Request.
type Result struct {
	Request *Request
	Code    Code
	Message string // for people
	// Back is the value read back, in the unit of the point; zero: none.
	Back sources.Value
	At   time.Time // by the gateway's clock
	// Entry is the number of the line in the audit log; 0: none.
	Entry uint64
	// Spare says that nothing was done and many of this origin were answered
	// already: one more answer would only push out those of others.
	Spare bool
}

// AppendJSON appends the result as answers carry it:
//
//	{"id":"7","ok":false,"code":"out-of-range","message":"…","value":99,"at":"2026-11-21T18:00:00.123Z","entry":12}
//
// with "written" for a value that was read back, and with "device" and "point" if
// the command named them. Without an id there is none.
func (r *Result) AppendJSON(dst []byte) []byte {
	text := func(key, value string) {
		dst = append(append(append(dst, '"'), key...), `":`...)
		dst = append(sources.AppendJSONString(dst, value), ',')
	}
	dst = append(dst, '{')
	if r.Request.ID != "" {
		text("id", r.Request.ID)
	}
	if r.Request.Named && r.Request.Device != "" {
		text("device", r.Request.Device)
	}
	if r.Request.Named && r.Request.Point != "" {
		text("point", r.Request.Point)
	}
	dst = append(strconv.AppendBool(append(dst, `"ok":`...), r.Code == OK), ',')
	text("code", string(r.Code))
	if r.Message != "" {
		text("message", r.Message)
	}
	if r.Request.Value.Kind() != sources.KindNone {
		dst = append(r.Request.Value.AppendJSON(append(dst, `"value":`...)), ',')
	}
	if r.Back.Kind() != sources.KindNone {
		dst = append(r.Back.AppendJSON(append(dst, `"written":`...)), ',')
	}
	text("at", r.At.UTC().Format(timeFormat))
	if r.Entry > 0 {
		return append(strconv.AppendUint(append(dst, `"entry":`...), r.Entry, 10), '}')
	}
	dst[len(dst)-1] = '}'
	return dst
}

const timeFormat = "2006-01-02T15:04:05.000Z07:00"

// maxID is the longest id that is taken, in bytes.
const maxID = 128

// ParseJSON reads the payload of a command topic into a Request without Origin:
//
//	{"id":"7","value":12.5,"ttl":10,"sent":"2026-11-21T18:00:00Z","expires":1795284000000,"confirm":true}
//
// id is a text or a number and has to be there. Device and Point are those of the
// keys device and point, if they are there: where the topic tells them it counts. ttl is in seconds; sent and
// expires are RFC 3339 or milliseconds since 1970. Other keys are left alone.
// With plain, a bare value is taken too: 12.5, true, heat. Of a command that is
// wrong, Wrong says why, and what could be read stays, so that the answer has the
// id. payload is not kept.
func ParseJSON(payload []byte, plain bool) Request {
	r, wrong := parse(payload, plain)
	r.Wrong = wrong
	return r
}

func parse(payload []byte, plain bool) (r Request, wrong string) {
	if len(payload) > maxPayload {
		return r, "the command is too long"
	}
	var in struct {
		ID      json.RawMessage `json:"id"`
		Value   json.RawMessage `json:"value"`
		TTL     *float64        `json:"ttl"`
		Sent    json.RawMessage `json:"sent"`
		Expires json.RawMessage `json:"expires"`
		Confirm bool            `json:"confirm"`
		Device  json.RawMessage `json:"device"`
		Point   json.RawMessage `json:"point"`
	}
	if err := json.Unmarshal(payload, &in); err != nil {
		if v, ok := parseValue(payload); ok && plain {
			r.Value = v
			return r, ""
		}
		if plain && len(payload) > 0 && payload[0] != '{' {
			r.Value = sources.String(string(payload))
			return r, ""
		}
		return r, `the command is not JSON such as {"id":"1","value":12.5}`
	}
	id, ok := parseValue(in.ID)
	if r.ID = id.String(); !ok || id.Kind() == sources.KindBool || r.ID == "" || len(r.ID) > maxID {
		r.ID = ""
		return r, "id is missing, or no text of 1 to 128 bytes"
	}
	r.Confirmed, r.Device, r.Point = in.Confirm, parseName(in.Device), parseName(in.Point)
	if r.Value, ok = parseValue(in.Value); !ok {
		return r, "value is missing, or no number, text, true or false"
	}
	if in.TTL != nil {
		if !(*in.TTL > 0 && *in.TTL <= 86400) {
			return r, "ttl is not a number of seconds up to 86400"
		}
		r.TTL = max(time.Duration(*in.TTL*float64(time.Second)), 1) // 0 would be none
	}
	if r.Sent, ok = parseTime(in.Sent); !ok {
		return r, "sent is neither RFC 3339 nor milliseconds since 1970"
	}
	if r.Expires, ok = parseTime(in.Expires); !ok {
		return r, "expires is neither RFC 3339 nor milliseconds since 1970"
	}
	return r, ""
}

// maxPayload is the longest command, in bytes.
const maxPayload = 4096

// parseValue reads a JSON number, text or bool.
func parseValue(data json.RawMessage) (sources.Value, bool) {
	var any any
	if len(data) == 0 || json.Unmarshal(data, &any) != nil {
		return sources.Value{}, false
	}
	switch v := any.(type) {
	case bool:
		return sources.Bool(v), true
	case string:
		return sources.String(v), true
	case float64:
		text := string(data)
		if i, err := strconv.ParseInt(text, 10, 64); err == nil {
			return sources.Int64(i), true
		}
		if u, err := strconv.ParseUint(text, 10, 64); err == nil {
			return sources.Uint64(u), true
		}
		return sources.Float64(v), true
	}
	return sources.Value{}, false
}

// parseName reads a name; what is none gives "".
func parseName(data json.RawMessage) string {
	if v, ok := parseValue(data); ok && v.Kind() == sources.KindString {
		return v.AsString()
	}
	return ""
}

// parseTime reads a time; nothing gives the zero Time.
func parseTime(data json.RawMessage) (time.Time, bool) {
	if len(data) == 0 || string(data) == "null" {
		return time.Time{}, true
	}
	switch v, ok := parseValue(data); {
	case ok && v.Kind() == sources.KindString:
		t, err := time.Parse(time.RFC3339, v.AsString())
		return t, err == nil && !t.IsZero() // the zero Time would be none
	case ok && v.IsNumber() && v.AsFloat64() > 0 && v.AsFloat64() < 1e14:
		return time.UnixMilli(v.AsInt64()), true
	}
	return time.Time{}, false
}

package command

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"sluice/mapping"
	"sluice/sources"
	"sluice/sources/register"
)

// check decides on a command, and sets what its write needs.
func (s *Service) check(j *job) (Code, string) {
	if remote := j.Origin.Kind == Upstream || j.Origin.Kind == Sparkplug; remote &&
		!bucketOf(s.flows, j, upstreamAtOnce, upstreamASecond).take(time.Duration(j.got.Mono)) {
		return TooFast, fmt.Sprintf("more than %d commands a second over this upstream", upstreamASecond)
	}
	if j.Retained {
		return Retained, "a retained message may be of any age"
	}
	if j.Wrong != "" {
		return BadRequest, j.Wrong
	}
	if len(j.ID) > maxID {
		return BadRequest, "the id is longer than 128 bytes"
	}
	if j.Origin.Name == "" {
		return Unauthorised, "commands need a user or a certificate"
	}
	known := false
	if j.target, known = s.targets[j.Device][j.Point]; !known {
		return UnknownPoint, "no such point"
	}
	w := j.target.Write
	if w == nil || s.buses[j.target.Bus] == nil {
		return NotWritable, "the site file does not allow writes to this point"
	}
	var unfit *mapping.Unfit
	if j.write, unfit = j.target.Raw(j.Value); unfit != nil {
		codes := map[mapping.UnfitKind]Code{mapping.UnfitType: BadValue, mapping.UnfitRange: OutOfRange, mapping.UnfitStep: BadStep}
		return codes[unfit.Kind], unfit.Message
	}
	if w.Confirm && !j.Confirmed {
		return Unconfirmed, `the point asks for "confirm": true`
	}
	if code, message := j.checkTimes(w); code != OK {
		return code, message
	}
	switch used, err := s.opts.Audit.Used(key(j.Origin, j.ID)); {
	case err != nil:
		s.opts.Log.Error("a command is refused, as the audit log cannot be read", "error", err)
		return AuditFailed, "the audit log cannot be read"
	case used:
		return Duplicate, "this id was used before"
	}
	if last, ok := s.last[j.target.Point]; ok && time.Duration(j.got.Mono)-last < w.Rate {
		return TooFast, fmt.Sprintf("one write in %v", w.Rate)
	}
	return OK, ""
}

// checkTimes works out until when the command may be carried out.
func (j *job) checkTimes(w *mapping.Writable) (Code, string) {
	left := w.Expiry
	if j.Timed && j.Sent.IsZero() && j.Expires.IsZero() {
		return Untimed, `a command that may have waited on the way has to say "sent" or "expires"`
	}
	if j.TTL > 0 {
		left = min(left, j.TTL)
	}
	if (!j.Sent.IsZero() || !j.Expires.IsZero()) && !j.got.Trusted {
		if j.Timed {
			return NoClock, "the gateway's clock is not right yet"
		}
		return NoClock, "the gateway's clock is not right yet: leave out sent and expires, or wait"
	}
	now := j.got.Time()
	if !j.Sent.IsZero() {
		switch age := now.Sub(j.Sent); {
		case age > w.Expiry || j.TTL > 0 && age > j.TTL:
			return Expired, "it was sent " + ago(j.Sent, now)
		case age < -w.Expiry:
			return Expired, "it was sent in the future"
		default:
			left -= max(age, 0)
		}
	}
	if !j.Expires.IsZero() {
		if left = min(left, j.Expires.Sub(now)); left <= 0 {
			return Expired, "it ended " + ago(j.Expires, now)
		}
	}
	j.until = time.Duration(j.got.Mono) + left
	return OK, ""
}

// ago says how long before now at was. Who gives seconds is told that milliseconds are meant.
func ago(at, now time.Time) string {
	if at.Year() == 1970 {
		return "in 1970: numbers are milliseconds since then"
	}
	return now.Sub(at).Round(time.Millisecond).String() + " ago"
}

// outcome returns the code for what Write has returned. ctx is that of Run.
func outcome(err error, ctx context.Context) (Code, string) {
	failed := (*sources.WriteError)(nil)
	switch {
	case err == nil:
		return OK, ""
	case err == sources.ErrReadback:
		return ReadbackDiffer, "the device shows another value than was written"
	case errors.Is(err, sources.ErrReadback):
		return ReadbackDiffer, err.Error()
	case errors.Is(err, sources.ErrNotWritable):
		return NotWritable, err.Error()
	case errors.Is(err, sources.ErrBusy):
		return Busy, err.Error()
	case errors.Is(err, register.ErrValue):
		return OutOfRange, err.Error()
	case errors.As(err, &failed):
		return failure(failed)
	case ctx.Err() != nil:
		return Shutdown, "the gateway stops; nothing was sent"
	case errors.Is(err, context.DeadlineExceeded):
		return Expired, "its time was over before its turn on the bus came"
	}
	return DeviceOffline, err.Error()
}

// The exceptions with which a gateway says that it does not reach the device
// (Modbus Application Protocol V1.1b3 §7).
const (
	gatewayPath   = 10
	gatewayTarget = 11
)

// failure returns the code for what went wrong in the field.
func failure(w *sources.WriteError) (Code, string) {
	n, ok := w.Reason.Exception()
	if away := n == gatewayPath || n == gatewayTarget; ok && (w.Sent || !away) {
		return Code(fmt.Sprintf("%s %d", CodeException, n)), "the device refused"
	}
	switch {
	case w.Sent:
		return NoReply, "the value was sent, and it is not known whether the device took it: " + w.Reason.String()
	case w.Reason == sources.ReasonShutdown:
		return Shutdown, "the gateway stops; nothing was sent"
	}
	return DeviceOffline, "nothing was sent: " + w.Reason.String()
}

// plainCode returns a code without the number of an exception.
func plainCode(c Code) Code {
	if strings.HasPrefix(string(c), string(CodeException)) {
		return CodeException
	}
	return c
}

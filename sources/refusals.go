package sources

import "log/slog"

// Refusals notes what the stage to the right of a source did not take. That is
// its loss to report; here it is counted, and logged once a change. The zero
// value is ready. It is not for several goroutines at once.
type Refusals struct {
	Count uint64 // deliveries not taken
	last  error
}

// Note takes what a delivery of samples of bus returned.
func (r *Refusals) Note(err error, log *slog.Logger, bus string) {
	if err != nil {
		r.Count++
	}
	switch {
	case err != nil && r.last == nil:
		log.Error("samples not taken", "bus", bus, "error", err)
	case err == nil && r.last != nil:
		log.Info("samples taken again", "bus", bus)
	}
	r.last = err
}

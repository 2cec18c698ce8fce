package modbus

import (
	"context"
	"fmt"
	"math"
	"time"

	"sluice/sources"
	"sluice/sources/register"
)

// confirm reads the value back.
func (b *Bus) confirm(ctx context.Context, w *write) {
	v, f := b.readBack(ctx, w)
	if ctx.Err() != nil {
		b.failWrite(sources.ReasonShutdown)
		return
	}
	b.compare(w, v, f)
}

// compare ends w if v is the value that was written, or time is up.
func (b *Bus) compare(w *write, v sources.Sample, f failure) {
	good := f.kind == answered && v.Quality != sources.Bad
	if good && w.shows(v.Value) {
		b.show(w, v)
		b.endWrite(v.Value, nil)
		return
	}
	if again := time.Now().Add(w.pause); again.Before(w.until) {
		w.notBefore, w.pause = again, min(2*w.pause, mostReadBack)
		return
	}
	switch {
	case w.lost != sources.ReasonNone:
		b.failWrite(w.lost)
	case f.kind != answered:
		b.endWrite(sources.Value{}, fmt.Errorf("%w: %v", sources.ErrReadback, f.reason))
	case !good:
		b.endWrite(sources.Value{}, fmt.Errorf("%w: %v", sources.ErrReadback, v.Reason))
	default:
		b.show(w, v)
		b.endWrite(v.Value, sources.ErrReadback)
	}
}

// readBack reads the point of w.
func (b *Bus) readBack(ctx context.Context, w *write) (sources.Sample, failure) {
	addr, n := b.extent(w.job, w.at, w.at+1, true)
	data, f := b.read(ctx, w.job.dev, w.point(), span{addr: addr, quantity: n}, w.job.dev.timeout())
	if f.kind != answered {
		return sources.Sample{}, f
	}
	b.alive(w.job.dev)
	return b.shown(w, data, int(addr)), f
}

// shown decodes the point of w from data that begin at address from.
func (b *Bus) shown(w *write, data []byte, from int) sources.Sample {
	pt := w.point()
	s := sources.Sample{Point: pt.ID, Stamp: b.cfg.Clock.Now()}
	at := int(pt.Address) - from
	own := b.bit[:]
	if pt.Table.IsBit() {
		own[0] = register.Bit(data, at)
	} else {
		own = data[2*at : 2*at+pt.Size()]
	}
	s.Value, s.Quality, s.Reason = pt.Decode(own)
	return s
}

// shows reports whether v is what was written.
func (w *write) shows(v sources.Value) bool {
	if m := w.want.Mask; m != 0 {
		return v.Bits()&m == w.want.Value.Bits()&m
	}
	if !v.IsNumber() {
		return v.Equal(w.want.Value) || v.Kind() == sources.KindBool && v.AsBool() == w.want.Value.AsBool()
	}
	return v.Equal(w.want.Value) || math.Abs(v.AsFloat64()-w.want.Value.AsFloat64()) <= w.want.Tolerance
}

// show delivers what was read back: it is news, and a poll that has read the old
// value does not end with it.
func (b *Bus) show(w *write, v sources.Sample) {
	if !w.job.poll.begun.IsZero() {
		w.job.samples[w.at] = v
	}
	b.emit([]sources.Sample{v})
}

package mapping

import "time"

// stampCache writes times as 2026-11-21T11:20:36.123Z (RFC 3339, UTC, cut to
// milliseconds). Records of one poll share their second, so that most writes
// only copy. The zero stampCache is ready for use.
type stampCache struct {
	second int64
	text   []byte // up to and with the seconds; empty before the first use
}

const (
	nanosPerSecond = int64(time.Second)
	nanosPerMilli  = int64(time.Millisecond)
)

// appendTime appends the time of wall, nanoseconds since 1970 UTC.
func (c *stampCache) appendTime(dst []byte, wall int64) []byte {
	second := wall / nanosPerSecond
	rest := wall % nanosPerSecond
	if rest < 0 {
		second, rest = second-1, rest+nanosPerSecond
	}
	if second != c.second || len(c.text) == 0 {
		c.second = second
		c.text = time.Unix(second, 0).UTC().AppendFormat(c.text[:0], "2006-01-02T15:04:05")
	}
	ms := rest / nanosPerMilli
	dst = append(dst, c.text...)
	return append(dst, '.', byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10), 'Z')
}

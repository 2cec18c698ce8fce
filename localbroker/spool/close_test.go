package spool

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"
)

// TestCloseWhileALaneFindsDamage: both need the disk and the lane.
func TestCloseWhileALaneFindsDamage(t *testing.T) {
	for _, what := range []string{"close", "drop"} {
		t.Run(what, func(t *testing.T) {
			s, fsys, names := logOf(t, testConfig(Buffered), newClock(), 60000)
			fsys.now["/log/"+names[0]].data[4000] ^= 1
			c := mustCursor(t, s, "up")
			reading, goOn := make(chan bool), make(chan bool)
			fsys.onRead = func(name string, _ int64, n int) (int, error) {
				if filepath.Base(name) == names[0] {
					fsys.onRead = nil
					reading <- true
					<-goOn
				}
				return n, nil
			}
			got := make(chan error, 1)
			go func() {
				for {
					if _, err := c.Next(context.Background(), false, 1000); err != nil {
						got <- err
						return
					}
				}
			}()
			<-reading
			closed := make(chan error, 1)
			go func() {
				if what == "close" {
					closed <- s.Close()
				} else {
					closed <- s.DropCursor("up")
				}
			}()
			s.await(func() bool { return s.closed || s.cursors["up"] == nil })
			close(goOn)
			for _, end := range []chan error{got, closed} {
				select {
				case err := <-end:
					if err != nil && !errors.Is(err, ErrClosed) {
						t.Error(err)
					}
				case <-time.After(20 * time.Second):
					t.Fatal("neither goes on")
				}
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

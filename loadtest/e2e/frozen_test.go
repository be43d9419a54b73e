//go:build e2e && linux

package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/loadtest/origin"
	"github.com/blindrelay/blindrelay/loadtest/probe"
	loadresult "github.com/blindrelay/blindrelay/loadtest/result"
	"github.com/blindrelay/blindrelay/loadtest/rig"
	"github.com/blindrelay/blindrelay/loadtest/viewer"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// The films are longer and larger by hand:
//
//	go test -tags e2e -run 'TestFrozenBesideFilms$' -v ./loadtest/e2e -watched 60s -film 4000000
var (
	watchedTime = flag.Duration("watched", 10*time.Second, "how long films are watched beside frozen readers")
	watchedRate = flag.Int64("film", 2_000_000, "bit/s of each of them")
)

const (
	arriveEvery = 100 * time.Millisecond // a viewer arrives
	lateEvery   = 10 * time.Millisecond  // a timer is looked at
	// lateLimit is how late timers may fire (p99) on a machine whose stalls say
	// anything, as for blindload.
	lateLimit = 50 * time.Millisecond
)

const (
	filmHomes, frozenHomes = 10, 10
	filmsPerHome           = 5
	frozenDevices          = 5 // of a home
	frozenPerDevice        = 6 // streams: what an agent keeps for a device, 32 MiB, is not what stops them
	frozenPerHome          = frozenDevices * frozenPerDevice
	perHome                = filmsPerHome + frozenDevices // at most, films first
	// Each device has a stream for what it says to its agent.
	frozenStreams = filmHomes*filmsPerHome*2 + frozenHomes*(frozenPerHome+frozenDevices)
	// frozenMemory is what all these streams fit into, see deploy/SIZING.md: each
	// reserves 1.31 MiB, the buffers of the frozen ones fill up to 1 MiB of which
	// 64 KiB are reserved, a sixteenth is for streams without an OPEN, and the
	// buffers leave another to newcomers.
	frozenMemory = (frozenStreams*1_344 + frozenHomes*frozenPerHome*960) << 10 * 8 / 7 // bytes
)

// TestFrozenBesideFilms has 300 readers read nothing, whose servers send as much
// as they can, and 50 viewers watch films meanwhile: at other homes, and at the
// same ones. The relay's resident memory stays under the formula of package
// relay at all times, no film stalls, and every byte is right, those of the
// readers too once they go on.
func TestFrozenBesideFilms(t *testing.T) {
	t.Run("other agents", func(t *testing.T) { frozenBesideFilms(t, filmHomes) })
	t.Run("the films' agents", func(t *testing.T) { frozenBesideFilms(t, 0) })
}

// frozenBesideFilms runs the readers at frozenHomes homes from the first on; the
// films' homes are those from 0 on.
func frozenBesideFilms(t *testing.T, first int) {
	r := startRelay(t, newState(t), "127.0.0.1:0", "--admit", "open", "--buffer-memory", fmt.Sprint(frozenMemory))
	at, err := wire.ParseRelay(r.address)
	must(t, err)
	films, err := origin.New(origin.Config{Seed: 4, Bitrates: []int64{*watchedRate}})
	must(t, err)
	homes, err := rig.New(rig.Config{Relay: &at, ViewersPerHome: perHome, Origin: films})
	must(t, err)
	defer homes.Close()

	watch := watchMemory(r)
	frozen := &readers{film: must1(t)(films.Content(origin.FilmPath(*watchedRate)))}
	defer frozen.close()
	for n := range frozenHomes {
		for i := range frozenDevices {
			frozen.freeze(t, homes, (first+n)*perHome+filmsPerHome+i)
		}
	}
	full := r.stopped(t)
	rec := loadresult.NewRecorder()
	before := cpu(t, r)
	late := showFilms(t, homes, films, rec)
	spent := cpu(t, r) - before
	stands, err := r.stands()
	must(t, err)
	frozen.goOn(t)
	most, formula := watch(t)

	v := rec.Result().Viewers
	t.Logf("%d frozen readers held %.0f MiB of buffers; %d films of %d Mbit/s for %v: %.0f MB, %d stalls, %.1f s of the relay's CPU; %v",
		frozenHomes*frozenPerHome, full/(1<<20), v.Started, *watchedRate/1_000_000, *watchedTime, float64(v.Bytes)/1e6, v.Stalls, spent.Seconds(), stands)
	t.Logf("resident: at most %.0f MiB, and the formula said %.0f then, of which %.0f of buffer memory", most/(1<<20), formula/(1<<20), float64(frozenMemory)/(1<<20))
	if v.Stalls > 0 && late > lateLimit {
		t.Logf("THIS MACHINE IS TOO BUSY: the viewers' own timers fired %v late (p99), so that %d stalls say nothing about the relay", late, v.Stalls)
		v.Stalls = 0
	}
	if v.Started != filmHomes*filmsPerHome || v.Stalls > 0 || v.Corrupt > 0 || v.Verified != v.Bytes || rec.Result().ErrorCount() > 0 {
		t.Errorf("the films: %+v, errors %v", v, rec.Result().Errors)
	}
}

// cpu returns what the relay took so far.
func cpu(t *testing.T, r relay) time.Duration {
	t.Helper()
	use, err := probe.Process(r.cmd.Process.Pid).Usage(t.Context())
	must(t, err)
	return use.CPU
}

// must1 returns what is there.
func must1(t *testing.T) func(origin.Film, bool) origin.Film {
	return func(f origin.Film, ok bool) origin.Film {
		t.Helper()
		if !ok {
			t.Fatal("the origin has no such film")
		}
		return f
	}
}

// stopped waits until the relay forwards nothing more, and returns how many
// bytes its buffers hold.
func (r relay) stopped(t *testing.T) (held float64) {
	t.Helper()
	last := -1.0
	eventually(t, patience, "the readers hold up their senders", func() error {
		time.Sleep(time.Second)
		forwarded, err := r.metric("blindrelay_forwarded_bytes_total", "")
		if err != nil {
			return err
		}
		if moved := forwarded - last; moved > 0 {
			last = forwarded
			return fmt.Errorf("%.0f bytes more have passed", moved)
		}
		held, err = r.metric("blindrelay_buffer_used_bytes", "")
		return err
	})
	const floor = 64 << 10
	if held < frozenHomes*frozenPerHome*floor {
		t.Errorf("the buffers hold %.0f KiB, and those of the readers had to be full", held/1024)
	}
	return held
}

// watchMemory compares the relay's resident memory with the formula each second,
// until the function that it returns is called. That returns the most that it
// was, and what the formula said then.
func watchMemory(r relay) func(*testing.T) (most, formula float64) {
	const (
		base       = 15 << 20
		perSession = 128 << 10
	)
	var most, then float64
	var over, failed error
	stop := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			sessions, err := r.metric("blindrelay_sessions", "")
			use, err2 := probe.Process(r.cmd.Process.Pid).Usage(context.Background())
			failed = errors.Join(failed, err, err2)
			resident, formula := float64(use.Memory), base+frozenMemory+sessions*perSession
			if err == nil && resident > formula {
				over = fmt.Errorf("%.1f MiB are resident, and the formula says at most %.1f", resident/(1<<20), formula/(1<<20))
			}
			if resident > most {
				most, then = resident, formula
			}
			select {
			case <-tick.C:
			case <-stop:
				return
			}
		}
	})
	return func(t *testing.T) (float64, float64) {
		t.Helper()
		close(stop)
		wait.Wait()
		if err := errors.Join(over, failed); err != nil {
			t.Error(err)
		}
		return most, then
	}
}

// showFilms lets all viewers watch for the time of the test, and returns how late
// timers fired meanwhile (p99).
func showFilms(t *testing.T, homes *rig.Rig, films *origin.Origin, rec *loadresult.Recorder) (late time.Duration) {
	t.Helper()
	var all []*rig.Access
	for i := range filmHomes * filmsPerHome {
		a, err := homes.Access(t.Context(), i/filmsPerHome*perHome+i%filmsPerHome)
		must(t, err)
		defer a.Close()
		all = append(all, a)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(len(all))*arriveEvery+*watchedTime)
	defer cancel()
	var wait sync.WaitGroup
	defer wait.Wait() // before the ways end
	for i, a := range all {
		v, err := viewer.New(viewer.Config{
			Kind: viewer.VOD, URL: a.Base + origin.VOD, Bitrate: *watchedRate, Buffer: playerBuffer,
			Verify: films, Client: a.Client, Recorder: rec, Repeat: true, Seed: uint64(i),
		})
		must(t, err)
		wait.Go(func() { v.Run(ctx) })
		time.Sleep(arriveEvery)
	}
	for ctx.Err() == nil {
		begin := time.Now()
		time.Sleep(lateEvery)
		rec.Hist(loadresult.HistDelay).RecordCorrected(time.Since(begin)-lateEvery, lateEvery)
	}
	return rec.Hist(loadresult.HistDelay).Quantile(0.99)
}

// readers are devices that have asked for films and read nothing.
type readers struct {
	film  origin.Film
	ways  []*rig.Access
	films []*http.Response
}

// freeze connects a device that asks for films.
func (f *readers) freeze(t *testing.T, homes *rig.Rig, i int) {
	t.Helper()
	a, err := homes.Access(t.Context(), i)
	must(t, err)
	f.ways = append(f.ways, a)
	for range frozenPerDevice {
		res, err := a.Client.Get(a.Base + origin.FilmPath(*watchedRate))
		must(t, err)
		f.films = append(f.films, res)
	}
}

// goOn has one reader of every third home read more than its end and the relay can
// have held.
func (f *readers) goOn(t *testing.T) {
	t.Helper()
	const more = 5 << 20 // bytes; an agent keeps 4 MiB of what was not read
	b := make([]byte, 64<<10)
	for i := 0; i < len(f.films); i += 3 * frozenPerHome {
		for at := int64(0); at < more; at += int64(len(b)) {
			_, err := io.ReadFull(f.films[i].Body, b)
			if err = errors.Join(err, f.film.Verify(b, at)); err != nil {
				t.Errorf("a reader that goes on: %v", err)
				break
			}
		}
	}
}

func (f *readers) close() {
	for _, res := range f.films {
		res.Body.Close()
	}
	for _, a := range f.ways {
		a.Close()
	}
}

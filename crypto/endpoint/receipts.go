package endpoint

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/blindrelay/blindrelay/crypto/pair"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// saveEvery is the least pause between two writes of receipts. A power cut costs
// at most what relays have counted meanwhile.
const saveEvery = 10 * time.Second

// receipts are the latest receipts of the relays, in memory and in the Home.
type receipts struct {
	home *pair.Home
	log  *slog.Logger
	news chan struct{} // sent to by take without blocking; one value is enough

	mu      sync.Mutex
	latest  map[string]pair.Receipt // by receiptKey; at most pair.MaxReceipts
	unsaved bool
	failed  bool // the latest write; that is logged once
}

// newReceipts reads what the Home has. A file that is broken is begun anew: the
// relays still know what they have counted since they started.
func newReceipts(home *pair.Home, log *slog.Logger) *receipts {
	r := &receipts{home: home, log: log, news: make(chan struct{}, 1), latest: make(map[string]pair.Receipt)}
	all, err := home.Receipts()
	if err != nil {
		log.Warn("the relays' receipts of what this server has used cannot be read, and are begun anew", "error", err)
	}
	for _, receipt := range all {
		r.latest[receipt.Relay] = receipt
	}
	return r
}

// receiptKey tells relays apart: by the key that is pinned, else by the address.
func receiptKey(relay wire.Relay) string {
	if relay.Pinned() {
		return relay.Pin.String()
	}
	return relay.String()
}

// of returns what a relay is shown; "" if it has given nothing.
func (r *receipts) of(relay wire.Relay) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.latest[receiptKey(relay)].Text
}

// take keeps a relay's latest receipt. Of too many relays the oldest goes.
func (r *receipts) take(relay wire.Relay, text string) {
	key := receiptKey(relay)
	r.mu.Lock()
	defer r.mu.Unlock()
	if text == "" || r.latest[key].Text == text {
		return
	}
	r.latest[key] = pair.Receipt{Relay: key, Text: text, Came: time.Now().Round(0)}
	r.unsaved = true
	if len(r.latest) > pair.MaxReceipts {
		delete(r.latest, r.sorted()[0].Relay)
	}
	select {
	case r.news <- struct{}{}:
	default:
	}
}

// sorted returns the receipts, the oldest first. Needs mu.
func (r *receipts) sorted() []pair.Receipt {
	return slices.SortedFunc(maps.Values(r.latest), func(a, b pair.Receipt) int { return a.Came.Compare(b.Came) })
}

// keep stores what is new until ctx ends.
func (r *receipts) keep(ctx context.Context) {
	for {
		select {
		case <-r.news:
		case <-ctx.Done():
			return
		}
		r.save()
		if !pause(ctx, saveEvery, nil) {
			return
		}
	}
}

// save stores what is new. Calls must not overlap.
func (r *receipts) save() {
	r.mu.Lock()
	all, unsaved := r.sorted(), r.unsaved
	r.unsaved = false
	r.mu.Unlock()
	if !unsaved {
		return
	}
	err := r.home.SaveReceipts(all)
	r.mu.Lock()
	said := r.failed
	r.failed = err != nil
	r.unsaved = r.unsaved || err != nil
	r.mu.Unlock()
	if err != nil && !said {
		r.log.Warn("the relays' receipts of what this server has used cannot be stored", "error", err)
	}
}

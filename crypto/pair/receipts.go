package pair

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

const (
	receiptsName    = "receipts.json"
	receiptsVersion = 1
	// MaxReceipts is how many relays' receipts a Home keeps.
	MaxReceipts = 64
	// maxRelayName is the longest name of a relay in the file, in bytes.
	maxRelayName = 512
	maxReceipts  = 512 << 10 // bytes of the file: JSON writes some letters with six
)

// Receipt is the latest receipt of a relay, see [wire.Receipt]. It is no secret.
type Receipt struct {
	Relay string    `json:"relay"` // which relay: at most 512 bytes of printable ASCII
	Text  string    `json:"receipt"`
	Came  time.Time `json:"came"`
}

// savedReceipts is what receipts.json holds.
type savedReceipts struct {
	Version  int       `json:"version"`
	Receipts []Receipt `json:"receipts"`
}

// Receipts reads what SaveReceipts has stored last; nothing if it never did. An
// error says that the file is not what that has written: the next SaveReceipts
// replaces it.
func (h *Home) Receipts() ([]Receipt, error) {
	b, err := h.dir.read(receiptsName, maxReceipts)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var all []Receipt
	if err == nil {
		all, err = parseReceipts(b)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", h.dir.file(receiptsName), err)
	}
	return all, nil
}

// SaveReceipts stores receipts, at most MaxReceipts, in the place of those from
// before. Calls must not overlap.
func (h *Home) SaveReceipts(all []Receipt) error {
	if err := checkReceipts(all); err != nil {
		return err
	}
	b, err := json.MarshalIndent(savedReceipts{receiptsVersion, all}, "", "  ")
	if err != nil {
		return err
	}
	_, err = h.dir.write(receiptsName, append(b, '\n'))
	return err
}

func parseReceipts(b []byte) ([]Receipt, error) {
	var s savedReceipts
	if err := decodeState(b, receiptsVersion, &s); err != nil {
		return nil, err
	}
	return s.Receipts, checkReceipts(s.Receipts)
}

func checkReceipts(all []Receipt) error {
	if n := len(all); n > MaxReceipts {
		return fmt.Errorf("receipts of %d relays, at most %d are possible", n, MaxReceipts)
	}
	relays := make(map[string]bool, len(all))
	for i, r := range all {
		_, err := wire.ParseReceipt([]byte(r.Text))
		if err != nil || len(r.Text) > wire.MaxReceipt {
			return fmt.Errorf("receipt %d is not 1 to %d bytes of printable ASCII", i+1, wire.MaxReceipt)
		}
		_, err = wire.ParseReceipt([]byte(r.Relay)) // the same letters
		if err != nil || r.Relay == "" || len(r.Relay) > maxRelayName || relays[r.Relay] {
			return fmt.Errorf("the relay of receipt %d has no name, or that of another one", i+1)
		}
		relays[r.Relay] = true
	}
	return nil
}

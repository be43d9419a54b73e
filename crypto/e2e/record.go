package e2e

import (
	"crypto/cipher"
	"encoding/binary"
)

// A record on the wire:
//
//	L u16 (17..16656) | seq u48 | AEAD(key, nonce(seq), aad = these eight bytes, inner)
//	inner = content (0..16384) | type u8 | zero padding (0..255)
//
// L counts the AEAD's output. seq starts at 0 and grows by 1 in each half.
const (
	recordHeaderLen = 8
	maxContent      = 16 << 10
	maxPadding      = 255
	minSealed       = 1 + tagLen
	maxSealed       = maxContent + 1 + maxPadding + tagLen
	recordOverhead  = recordHeaderLen + 1 + tagLen
)

// Types of records. Every other one is refused.
const (
	recordData = 1
	recordEnd  = 2 // the half's last record; its content is the half's last bytes
)

const (
	// rekeyEvery is after how many records a half takes its next key.
	rekeyEvery = 1 << 20
	// maxRecords is how many records one half may have. AES-GCM with a key per
	// 2^20 records stays far from its limits.
	maxRecords = 1 << 38
	// maxEmpty is how many empty DATA records may follow each other.
	maxEmpty = 32
	// The first record of a half hides the exact length of a short request or
	// response head.
	padTo    = 256
	padBelow = 2 << 10
)

// half is the key state of one direction of a stream, at its writer or at its
// reader. It is not safe for concurrent use.
type half struct {
	suite  *suite
	secret []byte // of the current epoch
	aead   cipher.AEAD
	iv     [nonceLen]byte
	seq    uint64         // of the next record
	nonce  [nonceLen]byte // scratch: lives here so that no record allocates
}

func newHalf(s *suite, secret []byte) (*half, error) {
	h := &half{suite: s, secret: secret}
	if err := h.key(); err != nil {
		return nil, err
	}
	return h, nil
}

// key derives key and iv of the current epoch.
func (h *half) key() error {
	k, err := expand(h.secret, "key", nil, h.suite.keyLen+nonceLen)
	if err != nil {
		return err
	}
	copy(h.iv[:], k[h.suite.keyLen:])
	h.aead, err = h.suite.aead(k[:h.suite.keyLen])
	return err
}

// prepare makes the key and the nonce of record seq ready.
func (h *half) prepare() error {
	if h.seq >= maxRecords {
		return errExhausted
	}
	if h.seq%rekeyEvery == 0 && h.seq != 0 {
		next, err := expand(h.secret, "next", nil, secretLen)
		if err != nil {
			return err
		}
		h.secret = next
		if err := h.key(); err != nil {
			return err
		}
	}
	h.nonce = h.iv
	var seq [8]byte
	binary.BigEndian.PutUint64(seq[:], h.seq)
	for i, b := range seq {
		h.nonce[nonceLen-8+i] ^= b
	}
	return nil
}

// seal appends a record to b, which must have room for
// recordOverhead+len(content)+padding bytes and not overlap content.
// After an error the half must not be used again.
func (h *half) seal(b []byte, kind byte, content []byte, padding int) ([]byte, error) {
	if err := h.prepare(); err != nil {
		return b, err
	}
	start := len(b)
	inner := len(content) + 1 + padding
	b = binary.BigEndian.AppendUint64(b, uint64(inner+tagLen)<<48|h.seq)
	b = append(b, content...)
	b = append(b, kind)
	b = b[:len(b)+padding]
	clear(b[len(b)-padding:])
	body := b[start+recordHeaderLen:]
	h.aead.Seal(body[:0], h.nonce[:], body, b[start:start+recordHeaderLen])
	h.seq++
	return b[:start+recordHeaderLen+inner+tagLen], nil
}

// recordLen returns the length of the record that begins b, header included,
// or 0 if b is too short to tell. The header is checked as far as it can be
// before the record is whole.
func (h *half) recordLen(b []byte) (int, error) {
	if len(b) < recordHeaderLen {
		return 0, nil
	}
	v := binary.BigEndian.Uint64(b)
	n := int(v >> 48)
	if n < minSealed || n > maxSealed || v&(1<<48-1) != h.seq {
		return 0, errRecord
	}
	return recordHeaderLen + n, nil
}

// open verifies the whole record rec and decrypts it to dst, which has
// room for the record's inner bytes and either is exactly where they are or does not
// overlap them. After an error the half must not be used again.
func (h *half) open(dst, rec []byte) (kind byte, content []byte, err error) {
	if err := h.prepare(); err != nil {
		return 0, nil, err
	}
	inner, err := h.aead.Open(dst[:0], h.nonce[:], rec[recordHeaderLen:], rec[:recordHeaderLen])
	if err != nil {
		return 0, nil, errRecord
	}
	h.seq++
	end := len(inner) - 1
	for end > 0 && inner[end] == 0 && len(inner)-end <= maxPadding {
		end--
	}
	kind, content = inner[end], inner[:end]
	if kind != recordData && kind != recordEnd || len(content) > maxContent {
		return 0, nil, errRecord
	}
	return kind, content, nil
}

// firstPadding is how much padding the first record of a half gets.
func firstPadding(content int) int {
	if content >= padBelow {
		return 0
	}
	return (padTo - (content+1)%padTo) % padTo
}

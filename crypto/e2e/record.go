package e2e

import (
	"crypto/cipher"
	"encoding/binary"
	"sync"
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

// half is the key state of one direction of a stream at its writer. It is not
// safe for concurrent use.
type half struct {
	suite  *suite
	secret []byte // of the current epoch
	key    epochKey
	seq    uint64         // of the next record
	nonce  [nonceLen]byte // scratch: lives here so that no record allocates
}

func newHalf(s *suite, secret []byte) (*half, error) {
	k, err := s.epochKey(secret)
	return &half{suite: s, secret: secret, key: k}, err
}

// epochKey derives key and iv of an epoch from its secret.
func (s *suite) epochKey(secret []byte) (k epochKey, err error) {
	b, err := expand(secret, "key", nil, s.keyLen+nonceLen)
	if err != nil {
		return k, err
	}
	copy(k.iv[:], b[s.keyLen:])
	k.aead, err = s.aead(b[:s.keyLen])
	return k, err
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
		if h.key, err = h.suite.epochKey(next); err != nil {
			return err
		}
	}
	h.nonce = h.key.iv
	nonceOf(&h.nonce, h.seq)
	return nil
}

// nonceOf turns an iv into the nonce of record seq.
func nonceOf(iv *[nonceLen]byte, seq uint64) {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], seq)
	for i, x := range b {
		iv[nonceLen-8+i] ^= x
	}
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
	h.key.aead.Seal(body[:0], h.nonce[:], body, b[start:start+recordHeaderLen])
	h.seq++
	return b[:start+recordHeaderLen+inner+tagLen], nil
}

// recordHeader reads the header that begins b: the record's number and its
// length, header included. b has at least recordHeaderLen bytes.
func recordHeader(b []byte) (seq uint64, size int, err error) {
	v := binary.BigEndian.Uint64(b)
	n := int(v >> 48)
	seq = v & (1<<48 - 1)
	if n < minSealed || n > maxSealed || seq >= maxRecords {
		return 0, 0, errRecord
	}
	return seq, recordHeaderLen + n, nil
}

// opening is the key state of one half at its reader. Records come over
// several carriers, so it opens them in any order, up to one change of keys
// apart. It is safe for concurrent use.
type opening struct {
	suite *suite

	mu     sync.Mutex
	epoch  uint64 // the newest that a record was verified of
	secret []byte // of epoch
	now    epochKey
	before epochKey // of the epoch before; unset in epoch 0
}

type epochKey struct {
	aead cipher.AEAD
	iv   [nonceLen]byte
}

func newOpening(s *suite, secret []byte) (*opening, error) {
	k, err := s.epochKey(secret)
	return &opening{suite: s, secret: secret, now: k}, err
}

// open verifies the whole record rec, whose header was checked, and decrypts it
// to dst, which has room for the record's inner bytes. nonce is scratch, so
// that no record allocates.
func (o *opening) open(nonce *[nonceLen]byte, dst, rec []byte) (kind byte, content []byte, err error) {
	seq := binary.BigEndian.Uint64(rec) & (1<<48 - 1)
	k, next, err := o.key(seq / rekeyEvery)
	if err != nil {
		return 0, nil, err
	}
	*nonce = k.iv
	nonceOf(nonce, seq)
	inner, err := k.aead.Open(dst[:0], nonce[:], rec[recordHeaderLen:], rec[:recordHeaderLen])
	if err != nil {
		return 0, nil, errRecord
	}
	if next != nil {
		o.advance(seq/rekeyEvery, k, next)
	}
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

// key returns the key of an epoch, and the epoch's secret if no record of it
// was verified yet.
func (o *opening) key(epoch uint64) (k epochKey, next []byte, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case epoch == o.epoch:
		return o.now, nil, nil
	case epoch+1 == o.epoch:
		return o.before, nil, nil
	case epoch != o.epoch+1:
		return k, nil, errRecord
	}
	if next, err = expand(o.secret, "next", nil, secretLen); err == nil {
		k, err = o.suite.epochKey(next)
	}
	return k, next, err
}

// advance takes over an epoch whose first record was verified.
func (o *opening) advance(epoch uint64, k epochKey, secret []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if epoch == o.epoch+1 {
		o.epoch, o.secret, o.before, o.now = epoch, secret, o.now, k
	}
}

// firstPadding is how much padding the first record of a half gets.
func firstPadding(content int) int {
	if content >= padBelow {
		return 0
	}
	return (padTo - (content+1)%padTo) % padTo
}

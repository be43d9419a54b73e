package result

import (
	"bytes"
	"compress/zlib"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// A histogram counts whole microseconds. The JSON form depends on the range
// and the digits: another geometry is another Schema.
const (
	histUnit   = time.Microsecond
	histLow    = 1
	histHigh   = int64(time.Hour / histUnit)
	histDigits = 3
	// maxEncoded bounds the base64 text of one histogram. Its 22 thousand
	// counters take nine bytes each at worst, before compression.
	maxEncoded = 512 << 10
	// maxCorrection bounds the work of one RecordCorrected.
	maxCorrection = 10_000
)

// Hist counts durations between 1 µs and 1 h, exact to three significant
// digits, in constant memory (about 180 KiB). Durations out of that range
// count as its nearest end. All methods may be called from several goroutines
// at once; those that read take a nil Hist for an empty one.
type Hist struct {
	mu sync.Mutex
	h  *hdrhistogram.Histogram // guarded by mu
}

// NewHist returns an empty histogram.
func NewHist() *Hist {
	return &Hist{h: hdrhistogram.New(histLow, histHigh, histDigits)}
}

// Record counts d once.
func (h *Hist) Record(d time.Duration) { h.record(clamp(d), 1) }

// RecordCorrected counts d, and where d is longer than expectedInterval also
// those requests that an open load would have sent meanwhile: d less one
// interval, d less two, and so on. A load that waits for its answers would
// leave them out and look better than it is ("coordinated omission", Gil Tene,
// How NOT to Measure Latency, 2013). expectedInterval at or below zero means
// no correction.
func (h *Hist) RecordCorrected(d, expectedInterval time.Duration) {
	d = min(d, time.Hour)
	h.record(clamp(d), 1)
	if expectedInterval <= 0 || d/2 < expectedInterval {
		return
	}
	// Many missing values are counted in groups, so that one long answer
	// cannot hold the caller up. Their number stays right.
	missing := int64(d/expectedInterval) - 1
	group := (missing + maxCorrection - 1) / maxCorrection
	for i := int64(0); i < missing; i += group {
		n := min(group, missing-i)
		h.record(clamp(d-time.Duration(i+1+n/2)*expectedInterval), n)
	}
}

func (h *Hist) record(units, n int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	// The value is within the range, the only condition for an error.
	_ = h.h.RecordValues(units, n)
}

func clamp(d time.Duration) int64 {
	return min(max(int64(d/histUnit), histLow), histHigh)
}

// Quantile returns the duration that a share q of all values does not exceed,
// with q between 0 and 1; zero if there are none.
func (h *Hist) Quantile(q float64) time.Duration {
	return read(h, func(h *hdrhistogram.Histogram) time.Duration {
		return time.Duration(h.ValueAtQuantile(100*q)) * histUnit
	})
}

// Count returns how many values there are.
func (h *Hist) Count() int64 {
	return read(h, (*hdrhistogram.Histogram).TotalCount)
}

// Mean returns the arithmetic mean; zero if there are no values.
func (h *Hist) Mean() time.Duration {
	return read(h, func(h *hdrhistogram.Histogram) time.Duration {
		return time.Duration(h.Mean() * float64(histUnit))
	})
}

// Max returns the longest duration; zero if there are none.
func (h *Hist) Max() time.Duration {
	return read(h, func(h *hdrhistogram.Histogram) time.Duration {
		return time.Duration(h.Max()) * histUnit
	})
}

// Min returns the shortest duration; zero if there are none.
func (h *Hist) Min() time.Duration {
	return read(h, func(h *hdrhistogram.Histogram) time.Duration {
		return time.Duration(h.Min()) * histUnit
	})
}

func read[T int64 | time.Duration](h *Hist, f func(*hdrhistogram.Histogram) T) T {
	if h == nil {
		return 0
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.h.TotalCount() == 0 {
		return 0
	}
	return f(h.h)
}

// Merge adds other's values. Two histograms may be merged into each other at
// the same time.
func (h *Hist) Merge(other *Hist) {
	if other == nil {
		return
	}
	values := other.Clone()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.h.Merge(values.h) // same geometry, so none is dropped
}

// Clone returns a copy that changes on its own.
func (h *Hist) Clone() *Hist {
	c := NewHist()
	if h == nil {
		return c
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	c.h.Merge(h.h)
	return c
}

// histJSON is the JSON form: HDR is what counts, the rest is for readers
// without a decoder. Durations are nanoseconds.
type histJSON struct {
	Count int64         `json:"count"`
	Mean  time.Duration `json:"mean_ns"`
	P50   time.Duration `json:"p50_ns"`
	P90   time.Duration `json:"p90_ns"`
	P95   time.Duration `json:"p95_ns"`
	P99   time.Duration `json:"p99_ns"`
	Max   time.Duration `json:"max_ns"`
	HDR   []byte        `json:"hdr_us"` // HdrHistogram V2, compressed; counts microseconds
}

// MarshalJSON writes the histogram in HdrHistogram's V2 compressed form
// (base64, in microseconds) with a summary beside it.
func (h *Hist) MarshalJSON() ([]byte, error) {
	c := h.Clone()
	text, err := c.h.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
	if err != nil {
		return nil, fmt.Errorf("encode histogram: %w", err)
	}
	raw, err := base64.StdEncoding.DecodeString(string(text))
	if err != nil {
		return nil, fmt.Errorf("encode histogram: %w", err)
	}
	return json.Marshal(histJSON{
		Count: c.Count(), Mean: c.Mean(), Max: c.Max(),
		P50: c.Quantile(0.50), P90: c.Quantile(0.90), P95: c.Quantile(0.95), P99: c.Quantile(0.99),
		HDR: raw,
	})
}

// UnmarshalJSON reads what MarshalJSON wrote and nothing else: the range and
// the digits must be ours, and the summary's count that of the histogram.
func (h *Hist) UnmarshalJSON(b []byte) error {
	if len(b) > maxEncoded {
		return fmt.Errorf("histogram of %d bytes: at most %d are read", len(b), maxEncoded)
	}
	var form histJSON
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&form); err != nil {
		return fmt.Errorf("histogram: %w", err)
	}
	if err := checkGeometry(form.HDR); err != nil {
		return fmt.Errorf("histogram: %w", err)
	}
	values, err := hdrhistogram.Decode([]byte(base64.StdEncoding.EncodeToString(form.HDR)))
	if err != nil {
		return fmt.Errorf("histogram: %w", err)
	}
	if n := values.TotalCount(); n != form.Count {
		return fmt.Errorf("histogram says it has %d values and has %d: the file was changed by hand or is damaged", form.Count, n)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.h = values
	return nil
}

// checkGeometry looks at the inner header before the decoder does, since the
// decoder allocates what that header asks for (HdrHistogram V2: cookie, payload
// length, index offset, digits as int32, lowest and highest value as int64, a
// conversion ratio; big endian).
func checkGeometry(raw []byte) error {
	const outer, inner = 8, 40
	if len(raw) < outer {
		return errors.New("no HDR data in hdr_us")
	}
	z, err := zlib.NewReader(bytes.NewReader(raw[outer:]))
	if err != nil {
		return fmt.Errorf("decompress hdr_us: %w", err)
	}
	defer z.Close()
	var head [inner]byte
	if _, err := io.ReadFull(z, head[:]); err != nil {
		return fmt.Errorf("decompress hdr_us: %w", err)
	}
	digits := binary.BigEndian.Uint32(head[12:])
	low, high := binary.BigEndian.Uint64(head[16:]), binary.BigEndian.Uint64(head[24:])
	if got, want := []uint64{uint64(digits), low, high}, []uint64{histDigits, histLow, uint64(histHigh)}; !slices.Equal(got, want) {
		return fmt.Errorf("range %d to %d µs with %d digits, but this version keeps %d to %d with %d", low, high, digits, histLow, histHigh, histDigits)
	}
	return nil
}

package result

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// maxFile is the largest file that is read: a day of samples takes two thirds
// of it.
const maxFile = 64 << 20

// WriteFile writes the result as indented JSON, replacing what is there.
func (r *Result) WriteFile(path string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("write result %s: %w", path, err)
	}
	if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("write result: %w", err)
	}
	return nil
}

// ReadFile reads what WriteFile wrote, at most 64 MiB. A file of another
// schema, with unknown fields or with damaged histograms is refused.
func ReadFile(path string) (*Result, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read result: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read result: %w", err)
	}
	r, err := decode(b)
	if err != nil {
		return nil, fmt.Errorf("read result %s: %w", path, err)
	}
	return r, nil
}

func decode(b []byte) (*Result, error) {
	if len(b) > maxFile {
		return nil, fmt.Errorf("larger than %d MiB, so not a file that blindload wrote", maxFile>>20)
	}
	// What decides whether the rest may be read is read first. A histogram
	// takes far more memory than its text, so their number is bounded here.
	var head struct {
		Schema     *int                       `json:"schema"`
		Histograms map[string]json.RawMessage `json:"histograms"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return nil, fmt.Errorf("not a result of blindload: %w", err)
	}
	switch {
	case head.Schema == nil:
		return nil, errors.New("no schema number, so not a result that blindload wrote with --json")
	case *head.Schema != Schema:
		return nil, fmt.Errorf("schema %d, but this blindload reads schema %d: use the version that wrote the file", *head.Schema, Schema)
	}
	for name := range head.Histograms {
		if !slices.Contains(histNames(), name) {
			return nil, fmt.Errorf("unknown histogram %.40q", name)
		}
	}
	r := new(Result)
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	dec.UseNumber() // the scenario's numbers stay as they were written
	if err := dec.Decode(r); err != nil {
		return nil, fmt.Errorf("not a result of blindload: %w", err)
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	return r, nil
}

// check refuses what no run can have found, so that nobody who reads a result
// has to think of it.
func (r *Result) check() error {
	v := r.Viewers
	for _, n := range []int64{
		v.Arrived, v.Started, v.Left, int64(v.Watched), v.Stalls, int64(v.Stalled), int64(v.Longest),
		v.Bytes, v.Verified, v.Corrupt, v.Requests, v.Connects, v.Switches, int64(r.Took),
	} {
		if n < 0 {
			return fmt.Errorf("a total is %d: totals are never negative", n)
		}
	}
	if len(r.Samples) > maxSamples {
		return fmt.Errorf("%d samples: a result has at most %d", len(r.Samples), maxSamples)
	}
	return nil
}

package report

import (
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/blindrelay/blindrelay/loadtest/result"
	"github.com/blindrelay/blindrelay/loadtest/slo"
)

// CSV writes a header and one row a run. Columns keep their names and order;
// new ones are added at the end. Figures are in base units as the column's name
// says: seconds, bytes, bit/s, ratios. A figure without data is empty.
func CSV(w io.Writer, results ...*result.Result) error {
	c := csv.NewWriter(w)
	head := []string{"started", "title", "took_s", "revision", "slo_held", "bottleneck"}
	for _, f := range allFigures() {
		head = append(head, f.column)
	}
	if err := c.Write(head); err != nil {
		return fmt.Errorf("write CSV: %w", err)
	}
	for _, r := range results {
		if err := c.Write(csvRow(r)); err != nil {
			return fmt.Errorf("write CSV: %w", err)
		}
	}
	c.Flush()
	if err := c.Error(); err != nil {
		return fmt.Errorf("write CSV: %w", err)
	}
	return nil
}

func csvRow(r *result.Result) []string {
	held := ""
	if len(r.SLO) > 0 {
		held = strconv.FormatBool(slo.Held(r.SLO))
	}
	row := []string{
		r.Started.UTC().Format(time.RFC3339), r.Title, number(r.Took.Seconds()),
		r.Machine.Revision, held, r.Bottleneck,
	}
	for _, f := range allFigures() {
		v, ok := f.measure(r)
		if !ok {
			row = append(row, "")
			continue
		}
		row = append(row, number(v))
	}
	return row
}

// number writes v with up to nine digits after the point: nanoseconds.
func number(v float64) string {
	return strings.TrimRight(strings.TrimRight(strconv.FormatFloat(v, 'f', 9, 64), "0"), ".")
}

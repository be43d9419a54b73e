// Package report shows what load tests found: as a table in a terminal, as CSV,
// as one HTML file with plots, side by side, and added up.
//
//	report.Text(os.Stdout, res)
//	report.HTML(file, res)
//	fmt.Print(report.Compare(before, after))
//	sum, err := report.Merge([]*result.Result{east, west}, false)
//
// A result is not changed by any of them.
package report

package endpoint

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// headStart is how long an attempt is alone before the next one begins beside
// it (RFC 8305, section 5, calls it the Connection Attempt Delay).
const headStart = 250 * time.Millisecond

// firstOf makes attempts one after the other, each beside those that have not
// failed within headStart, and returns the first that succeeds. The others are
// undone. It returns when nothing of it runs any more.
func firstOf[T any](ctx context.Context, attempts []func(context.Context) (T, error), undo func(T)) (T, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		value T
		err   error
	}
	results := make(chan result, len(attempts)) // one value from each attempt
	var won *T
	var errs []error
	started, ended := 0, 0
	start := func() {
		f := attempts[started]
		started++
		go func() {
			v, err := f(ctx)
			results <- result{v, err}
		}()
	}
	next := time.NewTimer(0)
	defer next.Stop()
	for ended < started || won == nil && started < len(attempts) && ctx.Err() == nil {
		var due <-chan time.Time
		if won == nil && started < len(attempts) && ctx.Err() == nil {
			due = next.C
		}
		select {
		case <-due:
			start()
			next.Reset(headStart)
		case r := <-results:
			ended++
			switch {
			case r.err != nil:
				errs = append(errs, r.err)
				next.Reset(0)
			case won != nil:
				undo(r.value)
			default:
				won = &r.value
				cancel()
			}
		}
	}
	if won != nil {
		return *won, nil
	}
	var none T
	if len(errs) == 0 {
		return none, context.Cause(ctx)
	}
	return none, worst(errs)
}

// worst returns the error of several that says most: one that somebody has to
// act on before all others, else the first. That the volume of one relay is used
// up says nothing of others.
func worst(errs []error) error {
	spent := func(err error) bool { return codeOf(err) == wire.CodeVolumeLimit }
	cancelled := func(err error) bool { return errors.Is(err, context.Canceled) }
	for _, says := range []func(error) bool{
		func(err error) bool { return hopeless(err) && !spent(err) },
		func(err error) bool { return !cancelled(err) && !spent(err) },
		func(err error) bool { return !cancelled(err) },
	} {
		if i := slices.IndexFunc(errs, says); i >= 0 {
			return errs[i]
		}
	}
	return errs[0]
}

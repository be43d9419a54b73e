package main

import "testing"

// TestVerifyNobody: without a session there is nothing to compare, and the
// command says why. Sessions are compared in loadtest/e2e.
func TestVerifyNobody(t *testing.T) {
	blindlink(t, "", nil, "verify", "--state", newDir(t)).want(t, 1, "there is no state", "--state DIR")

	o := owned{newHome(t, "tv")}
	o.run(t, "verify").want(t, 1, "`blindlink share` is not running")
	p := start(t, nil, "share", "--relay", "127.0.0.1:9", "--to", "http://127.0.0.1:9", "--state", o.dir)
	p.stderr.await(t, "connecting")
	for _, args := range [][]string{{"verify"}, {"verify", "tv", "--json"}} {
		if r := o.run(t, args...).want(t, 1, "nobody", "is connected now"); r.stdout != "" {
			t.Errorf("%q prints %q", args, r.stdout)
		}
	}
	p.stop(t)
}

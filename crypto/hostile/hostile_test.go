package hostile

import (
	"flag"
	"strings"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// stride is of how many attacks the race detector, which is slow, sees one.
const stride = 6

var seed = flag.Uint64("seed", 1, "of what the attacks leave to chance")

// inBubble runs attacks in virtual time, 16 at a time: the race detector does
// not bear all at once.
func inBubble(t *testing.T, attacks []Attack) (results []Result) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { results = Run(t.Context(), attacks, *seed, 16) })
	return results
}

// TestHostile runs every attack at every position and prints the table.
func TestHostile(t *testing.T) {
	for _, r := range inBubble(t, Honest()) {
		if r.Survived != "" || !r.Whole {
			t.Fatalf("%s, %s: %s (%s)", r.Attack, r.Position, r.Survived, r.Seen)
		}
	}
	attacks := Attacks()
	if raceDetector {
		some := attacks[:0:0]
		for i := int(*seed % stride); i < len(attacks); i += stride {
			some = append(some, attacks[i])
		}
		attacks = some
	}
	var table strings.Builder
	survivors, err := Print(&table, inBubble(t, attacks))
	if err != nil || survivors > 0 || table.Len() == 0 {
		t.Errorf("%d attacks succeeded, %v", survivors, err)
	}
	t.Logf("seed %d\n%s", *seed, &table)
}

// TestPrint shows a success of the relay's where one would look for it.
func TestPrint(t *testing.T) {
	var b strings.Builder
	n, err := Print(&b, []Result{
		{Attack: "a", Position: "p", Seen: "no"}, {Attack: "a", Position: "q", Whole: true}, {Attack: "b", Position: "r", Survived: "why"},
	})
	if n != 1 || err != nil {
		t.Fatal(n, err)
	}
	fields := strings.Join(strings.Fields(b.String()), " ")
	for _, want := range []string{"a 2 1 1 0 you see: no", "b 1 0 0 1 SUCCEEDED at r: why", "all 3 1 1 1"} {
		if !strings.Contains(fields, want) {
			t.Errorf("the table lacks %q:\n%s", want, &b)
		}
	}
}

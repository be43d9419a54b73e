//go:build e2e

package e2e

import (
	"context"
	"io"
	"regexp"
	"strings"
	"testing"
)

// TestApprove lets the owner decide about a device that holds an invite, by six
// words that both see.
func TestApprove(t *testing.T) {
	a := share(t, openRelay(t), startHello(t))

	t.Run("yes", func(t *testing.T) {
		d, owner, answer := awaitApproval(t, a)
		io.WriteString(answer, "y\n")
		d.url = d.awaitURL(t)
		wantPage(t, d, 0)
		owner.wantExit(t, readyTimeout, 0)
	})
	t.Run("no", func(t *testing.T) {
		d, owner, answer := awaitApproval(t, a)
		io.WriteString(answer, "n\n")
		d.wantExit(t, readyTimeout, 1)
		d.wantSaid(t, "owner")
		owner.wantExit(t, readyTimeout, 1)
	})
}

// awaitApproval invites a device and returns when the owner is asked.
func awaitApproval(t *testing.T, a agent) (d device, owner *process, answer io.Writer) {
	t.Helper()
	cmd := command(context.Background(), t, "blindlink", "invite", "--approve", "--state", a.state)
	answer, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	owner = start(t, "owner", cmd)
	text := strings.TrimSpace(owner.firstLine(t))
	d = startDevice(t, newState(t), text)
	words := regexp.MustCompile(`"([a-z]+ ){5}[a-z]+"`)
	find := func(text string) (string, bool) {
		found := words.FindString(text)
		return found, found != ""
	}
	asked := owner.await(t, owner.stderr, "ask about six words", find)
	if shown := d.await(t, d.stderr, "show six words", find); shown != asked {
		t.Fatalf("the device shows %s, the owner is asked about %s", shown, asked)
	}
	if out := d.stdout.String(); out != "" {
		t.Errorf("before the owner answered the device printed %q", out)
	}
	return d, owner, answer
}

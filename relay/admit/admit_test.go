package admit

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/blindrelay/blindrelay/transport/wire"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	here  = wire.Route{1, 2, 3}
	there = wire.Route{4, 5, 6}
)

// wantRefusal checks a refusal's code, and that its sentence, or what it says to
// the operator, has a word.
func wantRefusal(t *testing.T, err error, code wire.Code, word string) {
	t.Helper()
	refused, ok := errors.AsType[*Refusal](err)
	if !ok || refused.Code != code || !strings.Contains(refused.Error(), word) || refused.Text == "" {
		t.Errorf("got %v, want %v and a word of %q", err, code, word)
	}
}

func TestOpen(t *testing.T) {
	if g, err := (Open{}).Admit(context.Background(), Request{Route: here}); err != nil || g != (Grant{}) {
		t.Errorf("%v, %v", g, err)
	}
}

func TestAllow(t *testing.T) {
	p := Allow{here: true}
	if g, err := p.Admit(context.Background(), Request{Route: here}); err != nil || g != (Grant{}) {
		t.Errorf("%v, %v", g, err)
	}
	_, err := p.Admit(context.Background(), Request{Route: there})
	wantRefusal(t, err, wire.CodeNotAdmitted, there.String())
	_, err = Allow(nil).Admit(context.Background(), Request{Route: here})
	wantRefusal(t, err, wire.CodeNotAdmitted, "--allow")
}

package pair

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

func TestReceipts(t *testing.T) {
	path := t.TempDir() + "/home"
	h, err := OpenHome(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := h.Receipts(); got != nil || err != nil {
		t.Errorf("before the first: %v, %v", got, err)
	}
	now := time.Now().UTC()
	all := []Receipt{{"relay.example:4433", "one", now}, {"pin", strings.Repeat("~", wire.MaxReceipt), now}}
	if err := h.SaveReceipts(all); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path + "/" + receiptsName)
	if err != nil || openToOthers(info) {
		t.Errorf("the file has mode %v, %v", info.Mode(), err)
	}
	h.Close()
	if h, err = OpenHome(path); err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if got, err := h.Receipts(); !reflect.DeepEqual(got, all) || err != nil {
		t.Errorf("got %v, %v; want %v", got, err, all)
	}
	for name, wrong := range map[string][]Receipt{
		"a space":   {{"a", "b c", now}},
		"too long":  {{"a", strings.Repeat("x", wire.MaxReceipt+1), now}},
		"no relay":  {{"", "x", now}},
		"one twice": {{"a", "x", now}, {"a", "y", now}},
		"too many":  make([]Receipt, MaxReceipts+1),
	} {
		if err := h.SaveReceipts(wrong); err == nil {
			t.Errorf("%s: it is written", name)
		}
	}
	var most []Receipt
	for i := range MaxReceipts {
		most = append(most, Receipt{fmt.Sprintf("%0*d", maxRelayName, i), strings.Repeat("~", wire.MaxReceipt), now})
	}
	if err := h.SaveReceipts(most); err != nil {
		t.Fatal(err)
	}
	if got, err := h.Receipts(); len(got) != MaxReceipts || err != nil {
		t.Errorf("of as many as there may be %d are read: %v", len(got), err)
	}
}

// TestBrokenReceipts: a file that is not right is an error to read, and is
// replaced by the next write.
func TestBrokenReceipts(t *testing.T) {
	for name, content := range map[string]string{
		"empty":        "",
		"half":         `{"version":1,"rec`,
		"newer":        `{"version":2}`,
		"unknown":      `{"version":1,"more":3}`,
		"a receipt":    `{"version":1,"receipts":[{"relay":"a","receipt":"\u0000","came":"2026-01-01T00:00:00Z"}]}`,
		"far too long": strings.Repeat(" ", maxReceipts) + `{"version":1}`,
	} {
		path := t.TempDir() + "/home"
		h, err := OpenHome(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path+"/"+receiptsName, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := h.Receipts(); err == nil || !strings.Contains(err.Error(), receiptsName) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
		if err := h.SaveReceipts([]Receipt{{"a", "b", time.Now()}}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got, err := h.Receipts(); len(got) != 1 || err != nil {
			t.Errorf("%s: afterwards %v, %v", name, got, err)
		}
		h.Close()
	}
}

func FuzzReceiptsFile(f *testing.F) {
	f.Add([]byte(`{"version":1,"receipts":[{"relay":"relay.example:4433","receipt":"v1.abc","came":"2026-01-01T00:00:00Z"}]}`))
	f.Add([]byte(`{"version":1,"receipts":null}`))
	f.Add([]byte(`{"version":1,"receipts":[{},{}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		all, err := parseReceipts(b)
		if err != nil {
			return
		}
		for _, r := range all {
			if len(r.Text) > wire.MaxReceipt || len(r.Relay) > maxRelayName {
				t.Errorf("%d and %d bytes are taken", len(r.Relay), len(r.Text))
			}
			wire.Register{Receipt: r.Text}.Append(nil) // must not panic
		}
	})
}

// TestReceiptsOfAnyLetters keeps as much as may be kept, in letters that JSON
// writes with six.
func TestReceiptsOfAnyLetters(t *testing.T) {
	home, err := OpenHome(t.TempDir() + "/home")
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	var all []Receipt
	for n := range MaxReceipts {
		all = append(all, Receipt{
			Relay: fmt.Sprintf("%0*d", 8, n) + strings.Repeat("<", maxRelayName-8), Text: strings.Repeat("&", wire.MaxReceipt),
		})
	}
	if err := home.SaveReceipts(all); err != nil {
		t.Fatal(err)
	}
	if got, err := home.Receipts(); err != nil || len(got) != MaxReceipts {
		t.Errorf("of %d receipts %d are read: %v", MaxReceipts, len(got), err)
	}
}

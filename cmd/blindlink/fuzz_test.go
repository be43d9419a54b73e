package main

import (
	"encoding/json"
	"io"
	"net"
	"testing"
)

// FuzzDialogue says anything on the socket of a running share or open: as a
// command to it, and as its answer, which is then printed.
func FuzzDialogue(f *testing.F) {
	for _, v := range []any{
		request{Do: doRename, Name: "tv", NewName: "telly"},
		reply{Error: "no"},
		reply{Share: &shareStatus{Running: true, Server: "home", Devices: 2}},
		reply{Open: &openStatus{}},
		reply{Ask: &questionReply{Name: "tv"}},
	} {
		b, err := json.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"share":{"sessions":[{}],"relays":[{}]}}`))
	hear := func(t *testing.T, b []byte, v any) error {
		said, heard := net.Pipe()
		done := make(chan struct{}) // closed when all is said
		go func() {
			defer close(done)
			said.Write(b)
			said.Close()
		}()
		err := newDialogue(heard).receive(v, controlTime)
		heard.Close()
		<-done
		return err
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var req request
		if hear(t, b, &req) == nil {
			text, err := json.Marshal(req)
			if err != nil {
				t.Fatal(err)
			}
			var again request
			if err := hear(t, text, &again); err != nil || again != req {
				t.Fatalf("%+v became %+v, %v", req, again, err)
			}
		}
		var r reply
		if hear(t, b, &r) != nil {
			return
		}
		v := overview{Share: r.Share}
		if r.Open != nil {
			v.Open = append(v.Open, *r.Open)
		}
		if err := v.print(io.Discard); err != nil {
			t.Fatal(err)
		}
	})
}

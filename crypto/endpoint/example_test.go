package endpoint_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"

	"github.com/blindrelay/blindrelay/crypto/endpoint"
	"github.com/blindrelay/blindrelay/crypto/pair"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// A program at home serves HTTP to paired devices, through a relay.
func ExampleAgent() {
	relay, err := wire.ParseRelay("relay.example.org:4433#47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU")
	if err != nil {
		log.Fatal(err)
	}
	home, err := pair.OpenHome("/var/lib/my-server")
	if err != nil {
		log.Fatal(err)
	}
	defer home.Close()
	agent, err := endpoint.NewAgent(endpoint.AgentConfig{Home: home, Relays: []wire.Relay{relay}})
	if err != nil {
		log.Fatal(err)
	}
	defer agent.Close()

	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "hello from home")
	})
	log.Fatal(http.Serve(agent.Listen(), handler))
}

// A program elsewhere redeems an invite and fetches a page from home.
func ExampleDialer() {
	ctx := context.Background()
	away, err := pair.OpenAway("/home/me/.local/state/my-player")
	if err != nil {
		log.Fatal(err)
	}
	defer away.Close()
	invite, err := pair.ParseInvite("BR1:AEAA...") // what `blindlink invite` printed
	if err != nil {
		log.Fatal(err)
	}
	server, err := endpoint.Pair(ctx, endpoint.PairConfig{Identity: away.Identity(), Invite: invite, Name: "player"})
	if err != nil {
		log.Fatal(err)
	}
	if server, err = away.Add(server); err != nil { // the next start begins here, with away.Find("")
		log.Fatal(err)
	}

	dialer, err := endpoint.NewDialer(endpoint.DialerConfig{Identity: away.Identity(), Server: server})
	if err != nil {
		log.Fatal(err)
	}
	defer dialer.Close()
	client := &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext}}
	resp, err := client.Get("http://home/")
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	fmt.Printf("%s%v\n", page, err)
}

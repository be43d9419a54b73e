// Package endpoint is what a program embeds to be reachable through a relay,
// or to reach. An [Agent] is a net.Listener at home, a [Dialer] makes net.Conns
// away from home; both find their relay, and find it again, by themselves.
//
//	agent, err := endpoint.NewAgent(endpoint.AgentConfig{Home: home, Relays: relays})
//	http.Serve(agent.Listen(), handler)
//
//	dialer, err := endpoint.NewDialer(endpoint.DialerConfig{Identity: key, Server: server})
//	client := &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext}}
//
// Every connection is sealed end to end by package e2e. A Read that returns
// io.EOF has read everything that was sent. What a relay or a network cuts off
// goes on over another connection, through the same relay or another one; what
// it changes, or cuts off for longer than a minute, is an error.
package endpoint

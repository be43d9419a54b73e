package endpoint

import (
	"net/http"
	"strings"
)

// speaksForProxy are the headers by which proxies tell an application who is
// calling. A device must not speak them: the media server believes the agent,
// which is at home. The names are as plainHeader writes them; a trailing * is
// any ending.
var speaksForProxy = []string{
	"forwarded", "x-forwarded-*", "x-original-*", "x-real-ip", "x-client-ip", "x-cluster-client-ip",
	"client-ip", "true-client-ip", "cf-connecting-ip", "x-proxyuser-ip", "x-scheme", "x-url-scheme",
	// Who is logged in, as single sign-on proxies say it.
	"remote-*", "x-remote-*", "x-webauth-*", "x-authentik-*", "x-auth-request-*",
}

// stripForwarded deletes every header of speaksForProxy.
func stripForwarded(h http.Header) {
	for name := range h {
		if reserved(plainHeader(name)) {
			delete(h, name)
		}
	}
}

// plainHeader writes a header's name as applications may read it: CGI and its
// heirs do not tell an underscore from a dash.
func plainHeader(name string) string {
	return strings.ToLower(strings.ReplaceAll(name, "_", "-"))
}

func reserved(name string) bool {
	for _, r := range speaksForProxy {
		prefix, open := strings.CutSuffix(r, "*")
		if name == r || open && strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

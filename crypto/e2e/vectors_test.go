package e2e

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/hex"
	"os"
	"strings"
	"testing"
)

// readVectors reads testdata/vectors.txt: suite name, then name and hex.
func readVectors(t *testing.T) map[string]map[string][]byte {
	t.Helper()
	f, err := os.Open("testdata/vectors.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all := make(map[string]map[string][]byte)
	var of map[string][]byte
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if name, ok := strings.CutPrefix(sc.Text(), "suite "); ok {
			of = make(map[string][]byte)
			all[name] = of
		} else if strings.HasPrefix(sc.Text(), " ") {
			fields := strings.Fields(sc.Text())
			if of[fields[0]], err = hex.DecodeString(fields[1]); err != nil {
				t.Fatal(err)
			}
		}
	}
	return all
}

func count(from byte, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = from + byte(i)
	}
	return b
}

func suites() []*suite {
	return []*suite{suiteOf(tls.TLS_AES_128_GCM_SHA256), suiteOf(tls.TLS_AES_256_GCM_SHA384), suiteOf(tls.TLS_CHACHA20_POLY1305_SHA256)}
}

func TestKnownAnswers(t *testing.T) {
	vectors := readVectors(t)
	for _, su := range suites() {
		want := vectors[tls.CipherSuiteName(su.id)]
		t.Run(tls.CipherSuiteName(su.id), func(t *testing.T) {
			if len(want) != 16 {
				t.Fatalf("%d vectors, want 16", len(want))
			}
			session := count(0, 32)
			binding := count(0xc0, 32)
			name := &streamName{suite: su, id: 5, salt: [saltLen]byte(count(0x40, saltLen))}
			check := func(what string, got []byte, err error) {
				t.Helper()
				if err != nil || !bytes.Equal(got, want[what]) {
					t.Errorf("%s = %x, %v; want %x", what, got, err, want[what])
				}
			}
			half := func(what string, secret []byte) *half {
				t.Helper()
				check(what+".secret", secret, nil)
				commit, err := commitOf(secret)
				check(what+".commit", commit, err)
				k, err := expand(secret, "key", nil, su.keyLen+nonceLen)
				check(what+".key", k[:su.keyLen], err)
				h, err := newHalf(su, secret)
				if err != nil {
					t.Fatal(err)
				}
				check(what+".iv", h.key.iv[:], nil)
				derived, err := deriveHalf(secret)
				check(what+".resume", derived.resume, err)
				at := resumption{number: 3, gone: 2, next: 77}
				if what == "accept" {
					at.gone, at.next = 0, stopped
				}
				mac, err := at.mac(derived.resume, binding)
				check(what+".carrier", mac, err)
				return h
			}
			secret, err := name.openSecret(session)
			if err != nil {
				t.Fatal(err)
			}
			open := half("open", secret)
			secret, err = name.acceptSecret(session, [saltLen]byte(count(0x80, saltLen)))
			if err != nil {
				t.Fatal(err)
			}
			half("accept", secret)

			id, err := sessionID(session)
			check("session", id[:], err)
			mac, err := joinMAC(session, binding)
			check("join", mac[:], err)

			rec, err := open.seal(make([]byte, 0, 100), recordData, []byte("hello"), 2)
			if err != nil {
				t.Fatal(err)
			}
			rec, err = open.seal(rec, recordEnd, nil, 0)
			check("records", rec, err)

			open.seq = rekeyEvery
			err = open.prepare()
			check("next(open)", open.secret, err)
		})
	}
}

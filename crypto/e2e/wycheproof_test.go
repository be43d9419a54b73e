package e2e

import (
	"bytes"
	"compress/gzip"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"
)

// wycheproof is what is used of a file of testdata/wycheproof.
type wycheproof struct {
	NumberOfTests int
	TestGroups    []struct {
		KeySize, IVSize, TagSize int // bits
		Tests                    []wycheproofTest
	}
}

type wycheproofTest struct {
	ID                         int `json:"tcId"`
	Comment, Result            string
	Key, IV, AAD, Msg, Ct, Tag hexBytes // of an AEAD
	IKM, Salt, Info, OKM       hexBytes // of HKDF
	Size                       int      // of OKM
}

func readWycheproof(t *testing.T, name string) (w wycheproof) {
	t.Helper()
	f, err := os.Open("testdata/wycheproof/" + name + "_test.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.NewDecoder(z).Decode(&w); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, g := range w.TestGroups {
		n += len(g.Tests)
	}
	if n != w.NumberOfTests || n < 80 {
		t.Fatalf("%s: %d tests of %d", name, n, w.NumberOfTests)
	}
	return w
}

// tally counts what was done with vectors.
type tally map[string]int

func (c tally) log(t *testing.T) {
	for _, what := range slices.Sorted(maps.Keys(c)) {
		t.Logf("%4d %s", c[what], what)
	}
}

// demand fails if other than so many vectors were used: a filter that grows
// too wide would pass silently.
func (c tally) demand(t *testing.T, what string, n int) {
	t.Helper()
	if c[what] != n {
		t.Errorf("%d vectors %s, want %d", c[what], what, n)
	}
}

// TestWycheproof has the AEADs of the suites, as records are sealed and opened
// with them, and HKDF answer the vectors of project Wycheproof.
func TestWycheproof(t *testing.T) {
	t.Run("AES-GCM", func(t *testing.T) {
		c := aeadVectors(t, "aes_gcm", map[int]uint16{128: tls.TLS_AES_128_GCM_SHA256, 256: tls.TLS_AES_256_GCM_SHA384})
		c.demand(t, "valid: sealed and opened", 40+39)
		c.demand(t, "invalid: refused", 27+27)
		c.demand(t, "of these, as whole records", 2+2)
	})
	t.Run("ChaCha20-Poly1305", func(t *testing.T) {
		c := aeadVectors(t, "chacha20_poly1305", map[int]uint16{256: tls.TLS_CHACHA20_POLY1305_SHA256})
		c.demand(t, "valid: sealed and opened", 256)
		c.demand(t, "invalid: refused", 60)
		c.demand(t, "of these, as whole records", 44)
	})
	t.Run("HKDF-SHA-256", hkdfVectors)
}

// aeadVectors runs a file's vectors through the suite for each size of key.
func aeadVectors(t *testing.T, name string, suites map[int]uint16) tally {
	c := make(tally)
	for _, g := range readWycheproof(t, name).TestGroups {
		su := suiteOf(suites[g.KeySize])
		for _, v := range g.Tests {
			switch {
			case su == nil:
				c[fmt.Sprintf("skipped: no suite has a key of %d bits", g.KeySize)]++
				continue
			case g.IVSize != 8*nonceLen:
				c["skipped: a nonce of this protocol always has 96 bits"]++
				continue
			}
			aead, err := su.aead(v.Key)
			if err != nil {
				t.Fatal(err)
			}
			sealed := slices.Concat(v.Ct, v.Tag)
			plain, err := aead.Open(make([]byte, 0, len(v.Msg)), v.IV, sealed, v.AAD)
			if v.Result == "valid" {
				body := append(make([]byte, 0, len(sealed)), v.Msg...) // sealed in place, as half.seal does
				if got := aead.Seal(body[:0], v.IV, body, v.AAD); err != nil || !bytes.Equal(plain, v.Msg) || !bytes.Equal(got, sealed) {
					t.Errorf("%s %d (%s): sealed to %x, opened to %x, %v", name, v.ID, v.Comment, got, plain, err)
				}
				c["valid: sealed and opened"]++
			} else {
				if err == nil {
					t.Errorf("%s %d (%s) opens", name, v.ID, v.Comment)
				}
				c["invalid: refused"]++
			}
			if len(v.AAD) == recordHeaderLen && len(sealed) >= minSealed { // what a record has
				openRecord(t, su, v)
				c["of these, as whole records"]++
			}
		}
	}
	c.log(t)
	return c
}

// witness notes whether what is opened verifies.
type witness struct {
	cipher.AEAD
	verified bool
}

func (w *witness) Open(dst, nonce, sealed, aad []byte) ([]byte, error) {
	b, err := w.AEAD.Open(dst, nonce, sealed, aad)
	w.verified = err == nil
	return b, err
}

// openRecord opens a vector whose additional data has the size of a record's
// header as the record with this header. Its iv is chosen so that the record's
// number leads to the vector's nonce. A vector's plaintext need not be an inner
// record, so that open may refuse it after it has verified.
func openRecord(t *testing.T, su *suite, v wycheproofTest) {
	aead, err := su.aead(v.Key)
	if err != nil {
		t.Fatal(err)
	}
	seq := binary.BigEndian.Uint64(v.AAD) & (1<<48 - 1)
	w := &witness{AEAD: aead}
	k := epochKey{aead: w, iv: [nonceLen]byte(v.IV)}
	nonceOf(&k.iv, seq)
	o := &opening{suite: su, epoch: seq / rekeyEvery, now: k}
	var nonce [nonceLen]byte
	dst := make([]byte, len(v.Msg))
	_, _, err = o.open(&nonce, dst, slices.Concat(v.AAD, v.Ct, v.Tag))
	if valid := v.Result == "valid"; w.verified != valid || valid && !bytes.Equal(dst, v.Msg) || !valid && err != errRecord {
		t.Errorf("%d (%s) as a record: verified %v, %x, %v", v.ID, v.Comment, w.verified, dst, err)
	}
}

// rfc5869Expand is HKDF-Expand as RFC 5869, section 2.3, writes it down.
func rfc5869Expand(prk, info []byte, n int) (okm []byte) {
	var block []byte
	for i := byte(1); len(okm) < n; i++ {
		m := hmac.New(sha256.New, prk)
		m.Write(block)
		m.Write(info)
		m.Write([]byte{i})
		block = m.Sum(nil)
		okm = append(okm, block...)
	}
	return okm[:n]
}

// hkdfVectors: the vectors' info is not what expand makes of a label, so they
// show that rfc5869Expand is right, and that shows it of expand, with the
// vectors' keys, infos and sizes.
func hkdfVectors(t *testing.T) {
	c := make(tally)
	for _, g := range readWycheproof(t, "hkdf_sha256").TestGroups {
		for _, v := range g.Tests {
			prk, err := hkdf.Extract(sha256.New, v.IKM, v.Salt)
			if err != nil {
				t.Fatal(err)
			}
			got, err := expand(prk, "label", v.Info, v.Size)
			if v.Result != "valid" {
				if err == nil {
					t.Errorf("%d (%s): expand makes %d bytes", v.ID, v.Comment, v.Size)
				}
				c["invalid: refused"]++
				continue
			}
			if !bytes.Equal(rfc5869Expand(prk, v.Info, v.Size), v.OKM) {
				t.Errorf("%d (%s): the reference is wrong", v.ID, v.Comment)
			}
			info := append([]byte("blindrelay-e2e/1 label\x00"), v.Info...)
			if want := rfc5869Expand(prk, info, v.Size); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d (%s): expand is %x, %v; want %x", v.ID, v.Comment, got, err, want)
			}
			c["valid: expanded"]++
		}
	}
	c.log(t)
	c.demand(t, "valid: expanded", 83)
	c.demand(t, "invalid: refused", 3)
}

package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// identity is all that a relay keeps over a restart, and what replicas share.
type identity struct {
	certificate tls.Certificate // with Leaf set
	resetKey    [32]byte        // signs stateless resets (RFC 9000, section 10.3)
	tokenKey    [32]byte        // seals address validation tokens (RFC 9000, section 8.1)
}

// identityFiles says where the parts come from. An empty path means a file of
// the state directory, which is made if there is none.
type identityFiles struct {
	dir      string
	tlsCert  string // PEM; without it the certificate is made from the key
	tlsKey   string // PEM
	resetKey string // base64 of 32 bytes
	tokenKey string // base64 of 32 bytes
}

func (f identityFiles) load() (*identity, error) {
	if f.tlsKey == "" || f.resetKey == "" || f.tokenKey == "" {
		if err := openStateDir(f.dir); err != nil {
			return nil, fmt.Errorf("state directory %s: %w", f.dir, err)
		}
	}
	id := &identity{}
	keyPEM, err := f.secret(f.tlsKey, "hop.key", newHopKey)
	if err != nil {
		return nil, err
	}
	if id.certificate, err = f.certify(keyPEM); err != nil {
		return nil, err
	}
	if id.resetKey, err = f.secretKey(f.resetKey, "reset.key"); err != nil {
		return nil, err
	}
	id.tokenKey, err = f.secretKey(f.tokenKey, "token.key")
	return id, err
}

// reload returns the certificate as the files have it now.
func (f identityFiles) reload() (tls.Certificate, error) {
	keyPEM, err := f.secret(f.tlsKey, "hop.key", func() ([]byte, error) { return nil, errors.New("it is no longer there") })
	if err != nil {
		return tls.Certificate{}, err
	}
	return f.certify(keyPEM)
}

// certify returns the certificate of the key: the one in the file, or else one
// that the key signs for itself, which clients recognize by the pin of its key.
func (f identityFiles) certify(keyPEM []byte) (tls.Certificate, error) {
	var certPEM []byte
	var err error
	if f.tlsCert != "" {
		certPEM, err = os.ReadFile(f.tlsCert)
	} else {
		certPEM, err = selfSigned(keyPEM)
	}
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("relay certificate: %w", err)
	}
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return cert, fmt.Errorf("relay certificate: %w: --tls-cert takes the certificate chain and --tls-key its key, both PEM", err)
	}
	return cert, nil
}

func newHopKey() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// selfSigned makes a certificate that never ends: 99991231235959Z says so
// (RFC 5280, section 4.1.2.5).
func selfSigned(keyPEM []byte) (certPEM []byte, err error) {
	block, _ := pem.Decode(keyPEM)
	if block == nil {
		return nil, errors.New("the key file holds no PEM block")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("the key file is not a PKCS #8 private key, as `openssl genpkey` makes them: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("the key in the key file cannot sign")
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "blindrelay"},
		NotBefore:    time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, signer.Public(), key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

func (f identityFiles) secretKey(path, name string) (key [32]byte, err error) {
	text, err := f.secret(path, name, func() ([]byte, error) {
		var b [32]byte
		rand.Read(b[:])
		return []byte(base64.StdEncoding.EncodeToString(b[:]) + "\n"), nil
	})
	if err != nil {
		return key, err
	}
	if path == "" {
		path = filepath.Join(f.dir, name)
	}
	b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(b) != len(key) {
		return key, fmt.Errorf("key file %s: it does not hold 32 bytes in base64, as `openssl rand -base64 32` makes them; if it is damaged, remove it to get a new one", path)
	}
	return [32]byte(b), nil
}

// secret reads the file at path, which other users must not be able to read;
// without a path it reads the state directory's file of this name, which is
// made if there is none.
func (f identityFiles) secret(path, name string, make func() ([]byte, error)) ([]byte, error) {
	if path != "" {
		info, err := os.Stat(path)
		if err != nil {
			return nil, fmt.Errorf("key file: %w", err)
		}
		// The group may read it: that is how secrets are mounted into containers.
		if looser(info, 0o007) {
			return nil, fmt.Errorf("key file %s: every user of this machine may read it (mode %04o); run `chmod 600 %s`", path, info.Mode().Perm(), path)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("key file: %w", err)
		}
		return b, nil
	}
	path = filepath.Join(f.dir, name)
	b, err := readState(path)
	if errors.Is(err, fs.ErrNotExist) {
		if b, err = make(); err == nil {
			err = createState(path, b)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("state file %s: %w", path, err)
	}
	return b, nil
}

// openStateDir makes the directory if there is none. Nobody else may enter it:
// so nobody else can have put anything there.
func openStateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if looser(info, 0o077) {
		return fmt.Errorf("other users may enter it (mode %04o), and it holds the relay's keys; run `chmod 700 %s`, and think of new keys if others have been there", info.Mode().Perm(), dir)
	}
	return nil
}

func readState(path string) ([]byte, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	switch {
	case !info.Mode().IsRegular():
		return nil, errors.New("it is a link or no file at all; the state directory holds plain files, --tls-key, --reset-key and --token-key take files from elsewhere")
	case looser(info, 0o077):
		return nil, fmt.Errorf("other users may read it (mode %04o); run `chmod 600 %s`", info.Mode().Perm(), path)
	}
	return os.ReadFile(path)
}

// createState writes a new file, whole or not at all.
func createState(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		os.Remove(path)
	}
	return err
}

// looser reports whether a file's mode grants any of the bits. Windows has
// access lists instead, and makes files in a user's directories private.
func looser(info fs.FileInfo, bits fs.FileMode) bool {
	return runtime.GOOS != "windows" && info.Mode().Perm()&bits != 0
}

// defaultStateDir follows systemd.exec(5) and the XDG base directory
// specification. It is empty if there is no home directory either.
func defaultStateDir(env func(string) string) string {
	if dir, _, _ := strings.Cut(env("STATE_DIRECTORY"), ":"); dir != "" {
		return dir
	}
	if dir := env("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "blindrelay")
	}
	if home, err := os.UserHomeDir(); err == nil {
		return filepath.Join(home, ".local", "state", "blindrelay")
	}
	return ""
}

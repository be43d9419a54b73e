package pair

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

const (
	lockName = "lock"
	maxKey   = 16 << 10 // bytes of a key file
	maxState = 2 << 20  // bytes of a state file
	// lockPoll is how often a taken lock is tried again.
	lockPoll = 20 * time.Millisecond
)

// ErrInUse says that another process holds the state directory: `share` at
// home, which answers on its socket.
var ErrInUse = errors.New("the state directory is in use by another blindlink process")

// dir is a private state directory. Every access goes through root, so that
// nothing outside the directory is ever touched.
type dir struct {
	path string
	root *os.Root
}

// openDir opens a directory that only this user can look into, and makes it if
// it does not exist. The directory may be a symbolic link if this user or root
// made the link (systemd does so for DynamicUser=).
func openDir(path string) (*dir, error) {
	if path == "" {
		return nil, errors.New("no state directory given: use --state DIR")
	}
	path = filepath.Clean(path)
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	link, err := os.Lstat(path)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if link.Mode()&fs.ModeSymlink != 0 && !ownedHere(link, true) {
		return nil, fmt.Errorf("state directory %s is a symbolic link that another user made: give the directory itself", path)
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	d := &dir{path, root}
	info, err := root.Stat(".")
	if err == nil {
		err = private(path, info, "700")
	}
	if err != nil {
		root.Close()
		return nil, err
	}
	return d, nil
}

func (d *dir) file(name string) string { return filepath.Join(d.path, name) }

// private demands that info is of this user and closed to all others.
func private(path string, info fs.FileInfo, mode string) error {
	if !ownedHere(info, false) {
		return fmt.Errorf("%s belongs to another user: run blindlink as that user, or chown it", path)
	}
	if openToOthers(info) {
		return fmt.Errorf("%s is open to other users (mode %04o): run chmod %s %s", path, info.Mode().Perm(), mode, path)
	}
	return nil
}

// lock takes the exclusive lock of the directory and waits for it at most
// wait, then returns ErrInUse. The lock ends with the file or the process.
func (d *dir) lock(wait time.Duration) (*os.File, error) {
	if _, err := d.stat(lockName); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f, err := d.root.OpenFile(lockName, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock of the state directory: %w", err)
	}
	for end := time.Now().Add(wait); ; time.Sleep(lockPoll) {
		ok, err := tryLock(f)
		switch {
		case ok:
			return f, nil
		case err != nil:
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", d.file(lockName), err)
		case time.Now().After(end):
			f.Close()
			return nil, fmt.Errorf("%s: %w", d.path, ErrInUse)
		}
	}
}

// stat demands a private regular file. A missing one is fs.ErrNotExist.
func (d *dir) stat(name string) (fs.FileInfo, error) {
	info, err := d.root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file (%s): put the file itself there", d.file(name), info.Mode().Type())
	}
	return info, private(d.file(name), info, "600")
}

// read returns the content of a private regular file of at most limit bytes.
func (d *dir) read(name string, limit int64) ([]byte, error) {
	f, err := d.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s is longer than %d bytes: it is not a file of blindlink", d.file(name), limit)
	}
	return b, nil
}

// open opens a private regular file. If another process replaces the file at
// the same moment, it looks again.
func (d *dir) open(name string) (*os.File, error) {
	for range 100 {
		before, err := d.stat(name)
		if err != nil {
			return nil, err
		}
		f, err := d.root.Open(name)
		if err != nil {
			return nil, err
		}
		if info, err := f.Stat(); err == nil && os.SameFile(before, info) {
			return f, nil
		}
		f.Close()
	}
	return nil, fmt.Errorf("%s is replaced all the time: does another program write it?", d.file(name))
}

// write replaces a file such that after a crash at any moment it is whole and
// either old or new. The caller holds the lock. If visible, readers see the
// new content even though err may say that it might not survive a power cut.
func (d *dir) write(name string, data []byte) (visible bool, err error) {
	for i, step := range d.writeSteps(name, data) {
		if err := step(); err != nil {
			return i > renameStep, fmt.Errorf("write %s: %w", d.file(name), err)
		}
	}
	return true, nil
}

const renameStep = 4

func (d *dir) writeSteps(name string, data []byte) []func() error {
	tmp := name + ".tmp" // one name under the lock: a crash leaves at most one file behind
	var f *os.File
	return []func() error{
		func() error {
			if err := d.root.Remove(tmp); !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			return nil
		},
		func() (err error) {
			f, err = d.root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			return err
		},
		func() error {
			_, err := f.Write(data)
			if err != nil {
				f.Close()
			}
			return err
		},
		func() error { return errors.Join(f.Sync(), f.Close()) },
		renameStep: func() error { return d.root.Rename(tmp, name) },
		func() error { return syncDir(d.root) },
	}
}

// unmade demands that none of the files exists: state has gone missing if one does.
func (d *dir) unmade(state string, files ...string) error {
	for _, name := range files {
		if _, err := d.root.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s is missing while %s is there: restore it from a backup, or remove the directory to begin anew (every device must then pair again)", d.file(state), d.file(name))
		}
	}
	return nil
}

// createKey makes an Ed25519 key and writes it as PKCS#8 PEM.
func (d *dir) createKey(name string) error {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	_, err = d.write(name, pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der}))
	return err
}

const (
	pemKey   = "PRIVATE KEY"
	pemToken = "BLINDRELAY TOKEN KEY"
)

func (d *dir) readPEM(name, typ string) ([]byte, error) {
	b, err := d.read(name, maxKey)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is missing: restore it from a backup, or remove the directory to begin anew", d.file(name))
	}
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(b)
	if block == nil || block.Type != typ || len(rest) > 0 {
		return nil, fmt.Errorf("%s is not one PEM block of type %s: restore it from a backup", d.file(name), typ)
	}
	return block.Bytes, nil
}

// loadKey reads a private key as createKey writes it.
func (d *dir) loadKey(name string) (crypto.Signer, error) {
	der, err := d.readPEM(name, pemKey)
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("%s is damaged: restore it from a backup", d.file(name))
	}
	ed, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s holds a %T, an Ed25519 key belongs there", d.file(name), key)
	}
	return ed, nil
}

// spki returns the DER SubjectPublicKeyInfo of a key.
func spki(key crypto.Signer) ([]byte, error) { return x509.MarshalPKIXPublicKey(key.Public()) }

// decodeState reads a JSON state file into v: the known version, no unknown
// fields, nothing behind the end.
func decodeState(b []byte, version int, v any) error {
	var head struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return fmt.Errorf("it is not whole JSON (%w)", err)
	}
	if head.Version > version {
		return fmt.Errorf("a newer blindlink wrote it (version %d, this one knows %d): update blindlink", head.Version, version)
	}
	if head.Version != version {
		return fmt.Errorf("it has version %d, expected %d", head.Version, version)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	return dec.Decode(v)
}

package pair

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/windows"
)

// ownedHere and openToOthers do not judge on Windows: mode bits say nothing
// there, the access list of the user's profile protects the directory.
func ownedHere(fs.FileInfo, bool) bool { return true }

func openToOthers(fs.FileInfo) bool { return false }

// tryLock takes an exclusive LockFileEx lock, which ends with the open file.
func tryLock(f *os.File) (bool, error) {
	err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, new(windows.Overlapped))
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return false, nil
	}
	return err == nil, err
}

// syncDir does nothing: directories cannot be flushed on Windows, NTFS keeps
// renames in its journal.
func syncDir(*os.Root) error { return nil }

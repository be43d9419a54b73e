package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"github.com/landlock-lsm/go-landlock/landlock"
	landlockcall "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// confine takes from all threads of this process what it can, and returns what
// it could not: each error is one measure that is missing.
func confine(reads []string) (missing []error) {
	for _, measure := range []func() error{
		func() error { return noFiles(reads) },
		noCalls,
		noLook,
	} {
		if err := measure(); err != nil {
			missing = append(missing, err)
		}
	}
	return missing
}

// leastLandlock is Linux 6.2, from where on truncating a file is a write, too.
const leastLandlock = 3

// noFiles forbids by Landlock (landlock(7)) to open any file but those under
// reads, which may only be read: to write, make, remove, rename, link or
// execute any. What is open stays open: stderr, for the log.
func noFiles(reads []string) error {
	abi, err := landlockcall.LandlockGetABIVersion()
	if err != nil || abi < leastLandlock {
		return fmt.Errorf("no file writes: Landlock as of Linux 6.2 is needed, in the kernel and its list of security modules (lsm=), and system calls landlock_* allowed; it has version %d of %d", abi, leastLandlock)
	}
	var rules []landlock.Rule
	for _, path := range reads {
		rights := landlock.AccessFSSet(landlockcall.AccessFSReadFile)
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			rights |= landlockcall.AccessFSReadDir
		}
		rules = append(rules, landlock.PathAccess(rights, path).IgnoreIfMissing())
	}
	if err := landlock.V5.BestEffort().RestrictPaths(rules...); err != nil {
		return fmt.Errorf("no file writes: %w", err)
	}
	return nil
}

// neverCalled returns the system calls that a relay has no use for, and that
// whoever takes it over might: what runs programs, looks into other processes,
// leaves data outside of files' contents, where Landlock does not reach, or
// changes the machine. callsHere adds those that not every architecture has.
func neverCalled() []uint32 {
	return append([]uint32{
		unix.SYS_EXECVE, unix.SYS_EXECVEAT,
		unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PIDFD_GETFD, unix.SYS_KCMP, unix.SYS_PERF_EVENT_OPEN,
		unix.SYS_FCHMOD, unix.SYS_FCHMODAT, unix.SYS_FCHMODAT2, unix.SYS_FCHOWN, unix.SYS_FCHOWNAT, unix.SYS_UTIMENSAT,
		unix.SYS_SETXATTR, unix.SYS_LSETXATTR, unix.SYS_FSETXATTR, unix.SYS_REMOVEXATTR, unix.SYS_LREMOVEXATTR, unix.SYS_FREMOVEXATTR,
		unix.SYS_SHMGET, unix.SYS_MSGGET, unix.SYS_SEMGET, unix.SYS_MQ_OPEN, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KEYCTL,
		unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_IO_URING_SETUP, unix.SYS_USERFAULTFD, unix.SYS_MEMFD_CREATE, unix.SYS_BPF,
		unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_MOVE_MOUNT, unix.SYS_FSOPEN, unix.SYS_FSMOUNT, unix.SYS_OPEN_TREE, unix.SYS_MOUNT_SETATTR, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT,
		unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_PERSONALITY, unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_ACCT, unix.SYS_QUOTACTL, unix.SYS_SYSLOG,
		unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_KEXEC_LOAD, unix.SYS_REBOOT, unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME,
	}, callsHere()...)
}

// noCalls has the kernel answer those system calls with EPERM, by a filter of
// seccomp(2). Its verdict depends on the call's number alone, so the kernel
// works it out once for each.
func noCalls() error {
	if auditArch == 0 {
		return fmt.Errorf("no programs started: there is no filter of system calls for %s", runtime.GOARCH)
	}
	filter, err := callFilter()
	if err != nil {
		return err
	}
	// The thread that asks has to renounce new privileges; the kernel has the
	// others follow in both.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no new privileges: %w", err)
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	thread, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	runtime.KeepAlive(filter)
	switch {
	case errno != 0:
		return fmt.Errorf("no programs started: the filter of system calls: %w", errno)
	case thread != 0:
		return errors.New("no programs started: a thread of this process has another filter of system calls already")
	}
	return nil
}

// callFilter looks at struct seccomp_data: the call's number at 0, the
// architecture that it is a number of at 4. Another architecture's calls, and
// those of x32, are all refused.
func callFilter() ([]unix.SockFilter, error) {
	const x32 = 0x40000000
	calls := neverCalled()
	n := uint8(len(calls)) // a jump reaches 255 further
	code := []bpf.Instruction{
		bpf.LoadAbsolute{Off: 4, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: auditArch, SkipTrue: n + 3},
		bpf.LoadAbsolute{Off: 0, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: x32, SkipTrue: n + 1},
	}
	for i, call := range calls {
		code = append(code, bpf.JumpIf{Cond: bpf.JumpEqual, Val: call, SkipTrue: n - uint8(i)})
	}
	code = append(code,
		bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW},
		bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(syscall.EPERM)})
	raw, err := bpf.Assemble(code)
	if err != nil {
		return nil, fmt.Errorf("the filter of system calls: %w", err)
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return filter, nil
}

// noLook keeps other processes of the same user from attaching to this one and
// reading its memory, and the kernel from writing it to a core file.
func noLook() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("no core files, no tracing: %w", err)
	}
	return nil
}

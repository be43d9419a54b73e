package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/blindrelay/blindrelay/transport/transporttest"
	"golang.org/x/sys/unix"
)

// taken is a relay that somebody else has taken over: on threads that are older
// than its confinement and on a new one it attempts what it is asked for, line
// by line, and answers how each thread fared. It is part of the test alone.
func taken() {
	const old = 4
	asked, fared := make(chan string), make(chan error) // never closed: the process ends
	for range old {
		go func() {
			runtime.LockOSThread()
			for line := range asked {
				fared <- attempt(line)
			}
		}()
	}
	go func() {
		lines, answers := bufio.NewScanner(os.Stdin), os.NewFile(3, "answers")
		for lines.Scan() {
			// Each takes one line and gives its answer last, so all take part.
			for range old {
				asked <- lines.Text()
			}
			go func() {
				runtime.LockOSThread() // and never unlocks: the thread ends with it
				fared <- attempt(lines.Text())
			}()
			for range old + 1 {
				err := <-fared
				fmt.Fprintf(answers, "%t %v\n", errors.Is(err, fs.ErrPermission), err)
			}
		}
	}()
	main()
}

func attempt(line string) error {
	what, path, _ := strings.Cut(line, " ")
	switch what {
	case "create":
		f, err := os.CreateTemp(path, "new")
		if err == nil {
			f.Close()
		}
		return err
	case "append":
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		if err == nil {
			f.Close()
		}
		return err
	case "truncate":
		return os.Truncate(path, 1)
	case "directory":
		_, err := os.MkdirTemp(path, "new")
		return err
	case "link":
		return os.Link(path, fmt.Sprintf("%s.%d", path, unix.Gettid()))
	case "rename":
		return os.Rename(path, path)
	case "mode":
		return os.Chmod(path, 0o600)
	case "owner":
		return os.Chown(path, -1, -1)
	case "read":
		_, err := os.ReadFile(path)
		return err
	case "list":
		_, err := os.ReadDir(path)
		return err
	case "run":
		pid, err := syscall.ForkExec(path, []string{path}, &syscall.ProcAttr{Files: []uintptr{2, 2, 2}})
		if err == nil {
			syscall.Wait4(pid, nil, 0, nil)
		}
		return err
	case "trace": // a process that this one does not trace: ESRCH
		if _, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_CONT, uintptr(os.Getppid()), 0, 0, 0, 0); errno != unix.ESRCH {
			return errno
		}
		return nil
	case "dump":
		if dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); dumpable == 0 && err == nil {
			return fs.ErrPermission
		}
		return nil
	}
	return fmt.Errorf("nobody knows how to %s", what)
}

// attempt has the relay's process try something on all kinds of threads.
func (p *process) attempt(t *testing.T, line string, refused bool) {
	t.Helper()
	fmt.Fprintln(p.ask, line)
	for range 5 {
		answer, err := p.answers.ReadString('\n')
		if err != nil {
			t.Fatalf("%s: %v\n%s", line, err, &p.stderr)
		}
		if want := "false <nil>\n"; refused != strings.HasPrefix(answer, "true ") || !refused && answer != want {
			t.Errorf("%s: %s, refused should be %t", line, strings.TrimSpace(answer), refused)
		}
	}
}

// TestSandbox takes over a relay that runs and tries to leave something behind.
// The same succeeds in a relay that is not confined.
func TestSandbox(t *testing.T) {
	for sandbox, confined := range map[string]bool{"require": true, "best-effort": true, "off": false} {
		t.Run(sandbox, func(t *testing.T) {
			dir := t.TempDir()
			file, own := filepath.Join(dir, "file"), filepath.Join(dir, "tls", "key.pem")
			if err := errors.Join(os.WriteFile(file, []byte("film"), 0o600), os.Mkdir(filepath.Dir(own), 0o700)); err != nil {
				t.Fatal(err)
			}
			id := filepath.Join(dir, "identity")
			if _, err := (identityFiles{dir: id}).load(); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(filepath.Join(id, "hop.key"), own); err != nil {
				t.Fatal(err)
			}
			ops := freePort(t)
			p := serve(t, "taken", "--sandbox", sandbox, "--admit", "open", "--ops", ops, "--tls-key", own)
			for _, line := range []string{
				"create " + dir, "create " + p.state, "create " + filepath.Dir(own), "create /dev/shm", "append /proc/self/comm",
				"append " + file, "append " + own, "truncate " + file, "directory " + dir, "link " + file, "rename " + file,
				"mode " + file, "owner " + file, "read " + file, "read " + filepath.Join(p.state, "token.key"), "read /etc/passwd", "list /",
				"run /bin/true", "trace", "dump",
			} {
				p.attempt(t, line, confined)
			}
			// Its key may be replaced, and read again.
			if err := errors.Join(os.WriteFile(own+".new", []byte("x"), 0o600), os.Rename(own+".new", own)); err != nil {
				t.Fatal(err)
			}
			p.attempt(t, "read "+own, false)
			threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", p.cmd.Process.Pid))
			if err != nil || len(threads) < 5 {
				t.Fatalf("%d threads, %v", len(threads), err)
			}
			for _, thread := range threads {
				status, err := os.ReadFile(thread)
				if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
					continue // it has ended
				}
				if err != nil || strings.Contains(string(status), "\nSeccomp:\t2\n") != confined || strings.Contains(string(status), "\nNoNewPrivs:\t1\n") != confined {
					t.Errorf("%s: %v\n%s", thread, err, status)
				}
			}

			// It is a relay nevertheless.
			a, route := register(t, newDialer(t), p.relay(t), transporttest.Certificate(t))
			if _, err := attach(t, newDialer(t), p.relay(t), route).Open(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := a.Accept(t.Context()); err != nil {
				t.Fatal(err)
			}
			_, metrics := fetch(t, "http://"+ops+"/metrics")
			for _, want := range []string{"process_open_fds", "process_resident_memory_bytes", "process_start_time_seconds", "process_max_fds", "blindrelay_agents"} {
				if !strings.Contains(metrics, "\n"+want+" ") {
					t.Errorf("/metrics lacks %s", want)
				}
			}
		})
	}
}

// lacking runs the relay on a kernel that seems to know no Landlock.
func lacking() {
	runtime.LockOSThread()
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: unix.SYS_LANDLOCK_CREATE_RULESET},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		panic(err)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program))); errno != 0 {
		panic(errno)
	}
	runtime.UnlockOSThread()
	taken()
}

// TestSandboxWithoutLandlock starts the relay where a measure is missing: it
// says so, does the rest, or does not start.
func TestSandboxWithoutLandlock(t *testing.T) {
	cmd := command(t, "lacking", "serve", "--listen", "127.0.0.1:0", "--ops", "", "--state", filepath.Join(t.TempDir(), "state"), "--sandbox", "require")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Run(); cmd.ProcessState.ExitCode() != exitFailed || !strings.Contains(stderr.String(), "Landlock") || !strings.Contains(stderr.String(), "best-effort") {
		t.Errorf("it ended with %v:\n%s", err, &stderr)
	}

	p := serve(t, "lacking")
	p.attempt(t, "run /bin/true", true)
	p.attempt(t, "create "+t.TempDir(), false)
	if code := p.stop(t, os.Interrupt); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if said := p.stderr.String(); !strings.Contains(said, "not fully confined") || !strings.Contains(said, "Landlock") {
		t.Errorf("the log says\n%s", said)
	}
}

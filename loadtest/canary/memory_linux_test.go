package canary

import (
	"bufio"
	"encoding/hex"
	"io"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"unsafe"

	"go.uber.org/goleak"
)

// childVariable makes the test binary a process that holds what it reads.
const childVariable = "CANARY_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		hold()
		return
	}
	goleak.VerifyTestMain(m)
}

// hold keeps the bytes that it reads in hex in the middle of 32 MiB, of which
// it uses half, and lives until its stdin ends.
func hold() {
	in := bufio.NewReader(os.Stdin)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return
	}
	kept := make([]byte, 32<<20)
	for i := range kept[:16<<20] {
		kept[i] = byte(i)
	}
	n, err := hex.Decode(kept[8<<20-3:], line[:len(line)-1])
	if err != nil {
		return
	}
	clear(line)
	// Only in kept, and across the pages' edge.
	os.Stdout.WriteString("ready\n")
	io.Copy(io.Discard, in)
	os.Stdout.WriteString(hex.EncodeToString(kept[8<<20-3:][:n]))
}

// TestMemory finds what another process holds, and all of its memory: as many
// bytes as are resident, not as many as it has reserved.
func TestMemory(t *testing.T) {
	secret := noise(77, 24)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	io.WriteString(in, hex.EncodeToString(secret)+"\n")
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("the child said %q, %v", line, err)
	}
	pid := cmd.Process.Pid
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(pid, syscall.SIGCONT)

	var s Scanner
	if err := s.Add("held", secret); err != nil {
		t.Fatal(err)
	}
	if err := s.Add("elsewhere", noise(78, 24)); err != nil {
		t.Fatal(err)
	}
	sweep := s.Sweep()
	e, err := Memory(pid, sweep)
	if err != nil {
		t.Fatal(err)
	}
	if sweep.Found()[Mark{"held", "raw"}] < 2 || sweep.Found().Secrets()["elsewhere"] != 0 {
		t.Errorf("found %v", sweep.Found())
	}
	if e.Scanned < e.Resident*9/10 || e.Scanned > e.Resident+e.Swapped+e.Resident/4 || e.Scanned != sweep.Bytes() {
		t.Errorf("%d bytes scanned of %d that are resident and %d in swap", e.Scanned, e.Resident, e.Swapped)
	}
	if e.Resident < 16<<20 {
		t.Errorf("%d bytes are resident", e.Resident)
	}
	files, err := MappedFiles(pid)
	if err != nil || len(files) == 0 {
		t.Fatalf("mapped files: %q, %v", files, err)
	}
	if self, err := os.Executable(); err != nil || !slices.Contains(files, self) {
		t.Errorf("mapped files: %q, not the program %q", files, self)
	}
}

// TestMappedFile finds a file that a process has mapped.
func TestMappedFile(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "mapped")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(4096); err != nil {
		t.Fatal(err)
	}
	b, err := syscall.Mmap(int(f.Fd()), 0, 4096, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Munmap(b)
	files, err := MappedFiles(os.Getpid())
	if err != nil || !slices.Contains(files, f.Name()) {
		t.Errorf("mapped files at %p: %q, %v", unsafe.SliceData(b), files, err)
	}
}

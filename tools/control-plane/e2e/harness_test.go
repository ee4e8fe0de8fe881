// Package e2e tests the built control-plane binary from outside, as a test
// harness of the operator would use it. It must not import anything of
// Kubernetes: linking that takes longer than the tests.
package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	startLimit = 60 * time.Second // generous: machines that run tests are busy
	stopLimit  = 10 * time.Second // part of the contract
	waitLimit  = 30 * time.Second
)

// binary is the control-plane under test.
var binary string

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// run takes the binary from CONTROL_PLANE_BIN, or builds it.
func run(m *testing.M) (int, error) {
	binary = os.Getenv("CONTROL_PLANE_BIN")
	if binary == "" {
		dir, err := os.MkdirTemp("", "control-plane-e2e-")
		if err != nil {
			return 1, err
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "control-plane")
		build := exec.Command("../build.sh", binary)
		build.Stdout, build.Stderr = os.Stderr, os.Stderr
		if err := build.Run(); err != nil {
			return 1, fmt.Errorf("cannot build the control plane: %w", err)
		}
	}
	if !filepath.IsAbs(binary) {
		return 1, fmt.Errorf("CONTROL_PLANE_BIN must be an absolute path, not %q", binary)
	}
	return m.Run(), nil
}

// instance is a process that the test has started.
type instance struct {
	dir    string
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout output
	stderr output
	exited chan struct{} // closed once the process has ended
}

// start starts "serve" on the data directory. The process always stops with its
// standard input, so that none outlives a test that crashes.
func start(t *testing.T, dir string, args ...string) *instance {
	t.Helper()
	i := &instance{dir: dir, exited: make(chan struct{})}
	i.stdout.changed = make(chan struct{}, 1)
	i.cmd = exec.Command(binary, append([]string{"serve", "--data-dir", dir, "--exit-with-stdin"}, args...)...)
	i.cmd.Stdout, i.cmd.Stderr = &i.stdout, &i.stderr
	var err error
	if i.stdin, err = i.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := i.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = i.cmd.Wait()
		close(i.exited)
	}()
	t.Cleanup(func() {
		_ = i.cmd.Process.Kill()
		<-i.exited
	})
	return i
}

// startReady starts an instance and waits for the ready line.
func startReady(t *testing.T, dir string, args ...string) *instance {
	t.Helper()
	began := time.Now()
	i := start(t, dir, args...)
	deadline := time.After(startLimit)
	for !strings.Contains(i.stdout.String(), "\n") {
		select {
		case <-i.stdout.changed:
		case <-i.exited:
			t.Fatalf("ended before it was ready: %v\n%s", i.cmd.ProcessState, i.stderr.String())
		case <-deadline:
			t.Fatalf("not ready within %s", startLimit)
		}
	}
	i.wantOnlyReady(t)
	t.Logf("ready after %s", time.Since(began).Round(10*time.Millisecond))
	return i
}

func (i *instance) wantOnlyReady(t *testing.T) {
	t.Helper()
	if got := i.stdout.String(); got != "ready\n" {
		t.Errorf("standard output is %q, want the line \"ready\" only", got)
	}
}

// wantExit waits for the process to end and checks its exit code.
func (i *instance) wantExit(t *testing.T, code int, limit time.Duration) {
	t.Helper()
	began := time.Now()
	select {
	case <-i.exited:
	case <-time.After(limit):
		t.Fatalf("still running after %s", limit)
	}
	if got := i.cmd.ProcessState.ExitCode(); got != code {
		t.Fatalf("exit code %d (%v), want %d\n%s", got, i.cmd.ProcessState, code, i.stderr.String())
	}
	t.Logf("ended after %s", time.Since(began).Round(10*time.Millisecond))
}

// terminate stops the process in the orderly way.
func (i *instance) terminate(t *testing.T) {
	t.Helper()
	if err := i.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	i.wantExit(t, 0, stopLimit)
	if got := i.stderr.String(); got != "" {
		t.Errorf("an orderly run wrote to standard error: %s", got)
	}
}

func (i *instance) kubeconfig() string { return filepath.Join(i.dir, "kubeconfig") }

// try runs kubectl with an optional manifest on standard input.
func (i *instance) try(manifest string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, append([]string{"kubectl"}, args...)...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+i.kubeconfig())
	cmd.Stdin = strings.NewReader(manifest)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSpace(string(out)), err
}

func (i *instance) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := i.try("", args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (i *instance) apply(t *testing.T, manifest string) {
	t.Helper()
	if _, err := i.try(manifest, "apply", "-f", "-"); err != nil {
		t.Fatal(err)
	}
}

// eventually repeats the check until it passes. Each check is a request and
// takes a while by itself.
func eventually(t *testing.T, check func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(waitLimit); time.Now().Before(deadline); {
		if err = check(); err == nil {
			return
		}
	}
	t.Fatalf("not within %s: %v", waitLimit, err)
}

// wantRefused checks that the API server turns a manifest down for a reason.
func (i *instance) wantRefused(t *testing.T, manifest, reason string, args ...string) {
	t.Helper()
	eventually(t, func() error {
		_, err := i.try(manifest, append([]string{"create", "-f", "-", "--dry-run=server"}, args...)...)
		if err == nil {
			return errors.New("it was let in")
		}
		if !strings.Contains(err.Error(), reason) {
			return fmt.Errorf("it was not turned down because of %q: %w", reason, err)
		}
		return nil
	})
}

// output collects what a process writes, to be read while it runs.
type output struct {
	mu      sync.Mutex
	content bytes.Buffer
	changed chan struct{}
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case o.changed <- struct{}{}:
	default:
	}
	return o.content.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.content.String()
}

package e2e

// The life of the process: start, stop, crash, and what is in the way.

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestReadyAndKubeconfig(t *testing.T) {
	// A long path: Unix sockets do not take it, so it must not matter.
	dir := filepath.Join(t.TempDir(), strings.Repeat("long-name-", 12), "data")
	i := startReady(t, dir)

	info, err := os.Stat(i.kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	if mode := info.Mode().Perm(); mode != 0o600 {
		t.Errorf("the kubeconfig has mode %o, want 600", mode)
	}
	config := read(t, i.kubeconfig())
	for _, want := range []string{
		"server: https://127.0.0.1:", "certificate-authority-data:", "client-certificate-data:", "client-key-data:",
	} {
		if !strings.Contains(config, want) {
			t.Errorf("the kubeconfig has no %q", want)
		}
	}
	if got := i.kubectl(t, "get", "namespace", "default", "-o", "name"); got != "namespace/default" {
		t.Errorf("got %q", got)
	}
	if got := i.kubectl(t, "auth", "whoami", "-o", "jsonpath={.status.userInfo.groups}"); !strings.Contains(got, "system:masters") {
		t.Errorf("the user of the kubeconfig is in %s, want system:masters", got)
	}
	if _, err := os.Stat(filepath.Join(dir, "control-plane.log")); err != nil {
		t.Error(err)
	}
	i.terminate(t)
	i.wantOnlyReady(t)
}

func TestPortTaken(t *testing.T) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	port := fmt.Sprint(listener.Addr().(*net.TCPAddr).Port)

	dir := t.TempDir()
	i := start(t, dir, "--port", port)
	i.wantExit(t, 1, 5*time.Second)
	message := i.stderr.String()
	if strings.Count(message, "\n") != 1 || !strings.Contains(message, "port "+port+" ") || !strings.Contains(message, "--port") {
		t.Errorf("want one line that names port %s and what to do, got %q", port, message)
	}
	if _, err := os.Stat(filepath.Join(dir, "etcd")); !os.IsNotExist(err) {
		t.Errorf("etcd was started all the same")
	}
}

func TestKeptPortTaken(t *testing.T) {
	dir := t.TempDir()
	i := startReady(t, dir)
	i.terminate(t)
	before := read(t, i.kubeconfig())

	port := strings.TrimSpace(read(t, filepath.Join(dir, "port")))
	listener, err := net.Listen("tcp4", "127.0.0.1:"+port)
	if err != nil {
		t.Skipf("another program took port %s first: %v", port, err)
	}
	defer listener.Close()

	i = startReady(t, dir)
	if read(t, i.kubeconfig()) == before {
		t.Error("the kubeconfig still has the port that is taken")
	}
	i.kubectl(t, "get", "namespace", "default")
}

func TestTerminateAndRestart(t *testing.T) {
	dir := t.TempDir()
	i := startReady(t, dir)
	before := read(t, i.kubeconfig())
	i.kubectl(t, "create", "namespace", "kept")
	i.kubectl(t, "create", "configmap", "kept", "--namespace", "kept", "--from-literal", "key=value")

	// A watch that is open must not hold up the stop.
	watch := exec.Command(binary, "kubectl", "get", "configmaps", "--namespace", "kept", "--watch", "-o", "name")
	watch.Env = append(os.Environ(), "KUBECONFIG="+i.kubeconfig())
	seen, err := watch.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	defer watch.Wait()
	defer watch.Process.Kill()
	if _, err := seen.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}

	i.terminate(t)
	i = startReady(t, dir)
	if got := i.kubectl(t, "get", "configmap", "kept", "--namespace", "kept", "-o", "jsonpath={.data.key}"); got != "value" {
		t.Errorf("the config map has %q after a restart", got)
	}
	if read(t, i.kubeconfig()) != before {
		t.Error("the kubeconfig changed over a restart")
	}
	i.terminate(t)
}

func TestKillAndRestart(t *testing.T) {
	dir := t.TempDir()
	i := startReady(t, dir)
	before := read(t, i.kubeconfig())
	i.kubectl(t, "create", "namespace", "kept")
	if err := i.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-i.exited

	i = startReady(t, dir)
	i.kubectl(t, "get", "namespace", "kept")
	if read(t, i.kubeconfig()) != before {
		t.Error("the kubeconfig changed over a restart")
	}
	i.terminate(t)
}

func TestTwoInstances(t *testing.T) {
	a := startReady(t, t.TempDir())
	port := freePort(t)
	b := startReady(t, t.TempDir(), "--port", port)
	if want := "server: https://127.0.0.1:" + port + "\n"; !strings.Contains(read(t, b.kubeconfig()), want) {
		t.Errorf("the kubeconfig has no %q", want)
	}
	a.kubectl(t, "create", "namespace", "only-in-a")
	if _, err := b.try("", "get", "namespace", "only-in-a"); err == nil {
		t.Error("the instances share their data")
	}
	a.terminate(t)
	b.kubectl(t, "get", "namespace", "default")
	b.terminate(t)
}

func TestDataDirInUse(t *testing.T) {
	dir := t.TempDir()
	first := startReady(t, dir)
	second := start(t, dir)
	second.wantExit(t, 1, 5*time.Second)
	message := second.stderr.String()
	if strings.Count(message, "\n") != 1 || !strings.Contains(message, dir) || !strings.Contains(message, fmt.Sprint(first.cmd.Process.Pid)) {
		t.Errorf("want one line that names the directory and the process that uses it, got %q", message)
	}
	first.kubectl(t, "get", "namespace", "default")
}

func TestExitWithStdin(t *testing.T) {
	i := startReady(t, t.TempDir())
	if err := i.stdin.Close(); err != nil {
		t.Fatal(err)
	}
	i.wantExit(t, 0, stopLimit)
}

func TestTerminateWhileStarting(t *testing.T) {
	dir := t.TempDir()
	i := start(t, dir)
	eventually(t, func() error { // etcd comes up right after this
		_, err := os.Stat(i.kubeconfig())
		return err
	})
	if err := i.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	i.wantExit(t, 0, stopLimit)
	startReady(t, dir).terminate(t)
}

func TestCommandLine(t *testing.T) {
	link := filepath.Join(t.TempDir(), "kubectl")
	if err := os.Symlink(binary, link); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		argv []string
		want string
		code int
	}{
		{[]string{binary, "version"}, "v1.", 0},
		{[]string{binary, "--help"}, "--exit-with-stdin", 0},
		{[]string{binary, "kubectl", "version", "--client"}, "Client Version: v1.", 0},
		{[]string{link, "version", "--client"}, "Client Version: v1.", 0},
		{[]string{binary, "serve"}, "--data-dir", 2},
		{[]string{binary, "nonsense"}, "nonsense", 2},
	} {
		cmd := exec.Command(test.argv[0], test.argv[1:]...)
		out, _ := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != test.code || !strings.Contains(string(out), test.want) {
			t.Errorf("%v: exit code %d, want %d; output without %q: %s", test.argv, code, test.code, test.want, out)
		}
	}
}

// freePort returns a port that was free a moment ago, from below the range of
// outgoing connections and away from where the control plane looks by itself.
func freePort(t *testing.T) string {
	t.Helper()
	for port := 28443; port < 32000; port++ {
		if listener, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			listener.Close()
			return fmt.Sprint(port)
		}
	}
	t.Fatal("no port is free")
	return ""
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func TestTerminateWithHungRequest(t *testing.T) {
	i := startReady(t, t.TempDir())
	hole, err := net.Listen("tcp4", "127.0.0.1:0") // takes calls, never answers
	if err != nil {
		t.Fatal(err)
	}
	defer hole.Close()
	called := make(chan net.Conn, 1)
	go func() {
		if conn, err := hole.Accept(); err == nil {
			called <- conn
		}
	}()
	i.apply(t, fmt.Sprintf(`
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: hole}
webhooks:
- name: hole.example.test
  clientConfig: {url: "https://%s/"}
  rules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}]
  admissionReviewVersions: [v1]
  sideEffects: None
  timeoutSeconds: 30
`, hole.Addr()))
	// The webhook takes effect a moment later, so some of these get through.
	hung := make(chan struct{})
	var conn net.Conn
	for n := 0; conn == nil; n++ {
		go func() {
			_, _ = i.try("", "create", "configmap", fmt.Sprintf("c%d", n))
			hung <- struct{}{}
		}()
		select {
		case conn = <-called:
		case <-hung:
		}
	}
	defer conn.Close()
	i.terminate(t)
	<-hung
}

"""A control plane, a simulated fleet and the operator as child processes; for the demo and the benchmark.

Standard library only. Whatever is started here is stopped here, by its process id, however the program ends.
"""

import ctypes
import json
import os
import pathlib
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
PR_SET_PDEATHSIG = 1


class StackError(Exception):
    """Something did not start or did not work; the text is for the user."""


def cache_folder():
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return pathlib.Path(os.environ.get("OLLAMA_FLEET_CACHE") or os.path.join(base, "ollama-fleet-operator"))


def program(variable, default):
    """A program named by an environment variable, or where make puts it."""
    path = pathlib.Path(os.environ.get(variable) or default)
    if not os.access(path, os.X_OK):
        raise StackError(f"{path} is missing: run make, not this script, or name the program in {variable}")
    return str(path)


def get(url, timeout=5):
    with urllib.request.urlopen(url, timeout=timeout) as answer:
        return answer.read()


def say(text):
    print(f"==> {text}", flush=True)


def on_signals_raise():
    """SIGTERM and SIGHUP end the program as Ctrl-C does: through `finally`."""

    def end(_number, _frame):
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)


class Stack:
    """Use as a context manager: leaving it stops everything and removes the folder."""

    def __init__(self, name):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=f"ollama-fleet-{name}-"))
        self.processes = []
        self.kubeconfig = self.folder / "cluster" / "kubeconfig"
        self.control = None
        self.health = None
        self.api = None
        self.operator_process = None
        self._control_plane = program("CONTROL_PLANE_BIN", cache_folder() / "bin" / "control-plane")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # A second Ctrl-C must not leave anything running.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        for process in reversed(self.processes):
            self.stop(process)
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, name, command, first_line=False, limit=60, environment=None):
        """Starts a program with its output in the folder; `first_line` waits for a line on its standard output."""
        log = open(self.folder / f"{name}.log", "ab")
        libc = ctypes.CDLL(None, use_errno=True)
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE if first_line else subprocess.DEVNULL,
            stdout=subprocess.PIPE if first_line else log,
            stderr=log,
            env=environment,
            # Ctrl-C goes to this program alone, which then stops the others in order. If it is killed, they end too.
            start_new_session=True,
            preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM),
        )
        log.close()
        process.name = name
        self.processes.append(process)
        if not first_line:
            return process
        if not select.select([process.stdout], [], [], limit)[0]:
            raise StackError(f"{name} says nothing within {limit} s\n{self.log(name)}")
        line = process.stdout.readline().decode()
        if not line:
            raise StackError(f"{name} does not start\n{self.log(name)}")
        process.line = line
        return process

    def stop(self, process):
        """SIGTERM, and after ten seconds SIGKILL."""
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if process in self.processes:
            self.processes.remove(process)

    def log(self, name, lines=15):
        path = self.folder / f"{name}.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""

    def dead(self):
        """Name of a program that has ended although it should not."""
        return next((process.name for process in self.processes if process.poll() is not None), None)

    def control_plane(self):
        command = [self._control_plane, "serve", "--data-dir", self.kubeconfig.parent, "--exit-with-stdin"]
        process = self.start("control-plane", command, first_line=True)
        if process.line != "ready\n":
            raise StackError(f"the control plane says {process.line!r}")
        self.kubectl("apply", "--server-side", "-f", ROOT / "crds")
        self.kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd", "--all")
        return process

    def kubectl(self, *args, given=None, check=True):
        environment = dict(os.environ, KUBECONFIG=str(self.kubeconfig), KUBECACHEDIR=str(self.folder / "kubectl"))
        command = [self._control_plane, "kubectl", *map(str, args)]
        done = subprocess.run(
            command, input=given, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        if check and done.returncode:
            raise StackError(f"kubectl {' '.join(map(str, args))}\n{done.stderr or done.stdout}")
        return done.stdout if done.returncode == 0 else ""

    def fleetsim(self, binary, *args):
        """Starts the simulated fleet; returns what it says about itself."""
        command = [binary, "--exit-with-stdin", *args]
        ready = json.loads(self.start("fleetsim", command, first_line=True).line)
        self.control = f"http://{ready['control']}"
        return ready

    def simulate(self, method, path, body):
        request = urllib.request.Request(
            f"{self.control}/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}, method=method
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def operator(self, binary, *flags, kubeconfig=None):
        """Starts the operator and waits until it is ready. `binary` may be a command that ends with the binary."""
        (self.folder / "operator.log").unlink(missing_ok=True)
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("OLLAMA_FLEET_", "KUBERNETES_")) and name != "KUBECONFIG"
        }
        command = [*([binary] if isinstance(binary, str) else binary), "run", "--listen=127.0.0.1:0"]
        command += [f"--kubeconfig={kubeconfig or self.kubeconfig}", "--health-listen=127.0.0.1:0", "--api-auth=none", "--log-format=json", *flags]
        process = self.start("operator", command, environment=dict(environment, RUST_LOG="info"))
        self.operator_process = process
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise StackError(f"the operator ended with status {process.returncode}\n{self.log('operator')}")
            try:
                if self._find_listeners():
                    get(f"http://{self.health}/readyz")
                    return process
            except OSError:
                pass
            time.sleep(0.02)
        raise StackError(f"the operator is not ready within 60 s\n{self.log('operator')}")

    def _find_listeners(self):
        for line in (self.folder / "operator.log").read_text().splitlines():
            try:
                fields = json.loads(line)
            except ValueError:
                continue
            if fields.get("message") == "listening":
                self.health, self.api = fields["health"], fields["api"]
                return True
        return False


def run(main):
    """Runs a program's main function: 0, its own status, or 1 with a message instead of a traceback."""
    on_signals_raise()
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)

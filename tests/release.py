"""The static binary works where there is nothing else: in an empty root directory, as in its image.

release.py BINARY FLEETSIM. Needs root, or user namespaces; without either it says so and is skipped.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tools" / "stack"))
import stack  # noqa: E402

SERVER = """
apiVersion: ollama-fleet.io/v1alpha1
kind: OllamaServer
metadata: {name: a}
spec: {host: "%s", pluginPorts: {metricsPort: 0}}
"""


def enter(root):
    """The command that enters the root directory, or None."""
    for command in (["chroot"], ["unshare", "--map-root-user", "chroot"]):
        full = [*command, str(root), "/operator", "--version"]
        if shutil.which(command[0]) and subprocess.run(full, capture_output=True).returncode == 0:
            return [*command, str(root), "/operator"]
    return None


def main():
    binary, fleetsim = sys.argv[1:]
    with stack.Stack("release") as test:
        root = test.folder / "root"
        root.mkdir()
        shutil.copy(binary, root / "operator")
        command = enter(root)
        if command is None:
            # What cannot even start is no reason to skip.
            subprocess.run([binary, "--version"], check=True, stdout=subprocess.DEVNULL)
            print("skipped: neither root nor user namespaces, so no other root directory can be entered")
            return 0
        for arguments, word in ((["--version"], "ollama-fleet-operator "), (["run", "--help"], "--kubeconfig")):
            said = subprocess.run([*command, *arguments], capture_output=True, text=True, check=True).stdout
            if word not in said:
                raise stack.StackError(f"{' '.join(arguments)} says {said!r}")
        test.control_plane()
        shutil.copy(test.kubeconfig, root / "kubeconfig")
        os.chmod(root / "kubeconfig", 0o644)
        fleet = test.fleetsim(fleetsim, "--hosts", "1", "--address", "127.61.0.1", "--ollama-port", "0", "--agent-port", "0")
        flags = ["--allowed-cidrs=127.0.0.0/8", "--poll-interval=1s", "--min-poll-interval=1s"]
        process = test.operator(command, *flags, kubeconfig="/kubeconfig")
        # Another kind of name needs the resolver, which has no configuration here.
        for host in (f"127.61.0.1:{fleet['ollamaPort']}", f"localhost:{fleet['ollamaPort']}"):
            test.kubectl("apply", "--server-side", "-f", "-", given=SERVER % host)
            if host.startswith("127."):
                test.kubectl("wait", "--for=condition=Ready", "ollamaserver/a", "--timeout=20s")
        test.kubectl("wait", "--for=condition=Accepted", "ollamaserver/a", "--timeout=20s")
        time.sleep(1)
        if process.poll() is not None:
            raise stack.StackError(f"the operator ended\n{test.log('operator')}")
        process.terminate()
        if process.wait(10) != 0:
            raise stack.StackError(f"SIGTERM ends it with {process.returncode}\n{test.log('operator')}")
        test.stop(process)
        print("the binary runs in an empty root directory: it polls, and ends in order")
    return 0


stack.run(main)

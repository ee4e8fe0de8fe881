"""make instructions: how many instructions one poll takes, and in which functions. Needs valgrind.

Counted and not timed, so that the figure is the same on a busy machine and two builds can be told apart by one percent.
The system's own share (connecting, reading, writing) is not in it. Variables: BENCH_SERVERS (20), BENCH_SECONDS (60),
BENCH_PLUGIN (1; 0: host polls alone).
"""

import collections
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "stack"))
import stack  # noqa: E402
from api import Api  # noqa: E402

SERVERS = int(os.environ.get("BENCH_SERVERS", "20"))
SECONDS = int(os.environ.get("BENCH_SECONDS", "60"))
PLUGIN = os.environ.get("BENCH_PLUGIN", "1") != "0"
# Under valgrind everything takes some forty times as long. Models are listed at every sixth poll, as with the defaults.
INTERVAL, TIMEOUT, MODELS_INTERVAL, SETTLE = "2s", "1600ms", "12s", 25
SHOWN = 25
HINT = "install `valgrind` (Debian: apt-get install valgrind; Fedora: dnf install valgrind)"


class Profile:
    """What callgrind wrote: instructions of each function itself, and with all that it calls."""

    def __init__(self, path):
        self.own, self.whole = collections.Counter(), collections.Counter()
        names, function, called = {}, None, None
        for line in path.read_text().splitlines():
            key, _, rest = line.partition("=")
            if key in ("fn", "cfn"):
                number, _, name = rest.partition(" ")
                name = names.setdefault(number, re.sub(r"('\d+|17h[0-9a-f]{16}E?)$", "", name))
                function, called = (name, called) if key == "fn" else (function, name)
            elif key == "calls":
                called = (called,)
            elif re.match(r"[+\-*\d]", line):
                cost = int(line.rsplit(" ", 1)[1])
                if isinstance(called, tuple):
                    # One that calls itself would be counted once for each depth.
                    if called[0] != function:
                        self.whole[called[0]] += cost
                    called = None
                else:
                    self.own[function] += cost
        self.total = sum(self.own.values())


def polls(run):
    requests = json.loads(stack.get(f"{run.control}/stats", timeout=30))["requests"]
    return requests.get("/api/version", 0)


def main():
    if not shutil.which("valgrind"):
        raise stack.StackError(HINT)
    programs = stack.ROOT / "target" / "release"
    operator = stack.program("OPERATOR_BIN", programs / "ollama-fleet-operator")
    simulator = stack.program("FLEETSIM_BIN", programs / "fleetsim")
    with stack.Stack("instructions") as run:
        run.control_plane()
        flags = ["--hosts", str(SERVERS), "--address", "127.61.0.1", "--ollama-port", "0", "--agent-port", "0"]
        fleet = run.fleetsim(simulator, *flags, "--sockets", "shared")
        if PLUGIN:
            run.kubectl("apply", "--server-side", "-f", stack.ROOT / "plugins" / "fleet-metrics" / "plugin.yaml")
        api = Api(run.kubeconfig)
        connection = api.connection()
        for number, host in enumerate(json.loads(stack.get(f"{run.control}/hosts"))):
            spec = {
                "host": host["ollama"],
                "poll": {"modelsInterval": MODELS_INTERVAL},
                "pluginPorts": {"metricsPort": fleet["agentPort"]},
            }
            meta = {"apiVersion": "ollama-fleet.io/v1alpha1", "kind": "OllamaServer", "metadata": {"name": f"sim-{number}"}}
            api.call(connection, "POST", Api.SERVERS, {**meta, "spec": spec})
        out = run.folder / "callgrind.out"
        command = ["valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={out}", operator]
        flags = ["--allowed-cidrs=127.0.0.0/8", "--min-poll-interval=1s", f"--poll-interval={INTERVAL}"]
        run.operator(command, *flags, f"--poll-timeout={TIMEOUT}")
        pid = str(run.operator_process.pid)
        stack.say(f"{SERVERS} servers under valgrind: {SETTLE} s to settle, then {SECONDS} s")
        time.sleep(SETTLE)
        subprocess.run(["callgrind_control", "--zero", pid], check=True, capture_output=True)
        before = polls(run)
        time.sleep(SECONDS)
        count = polls(run) - before
        subprocess.run(["callgrind_control", "--dump", pid], check=True, capture_output=True)
        profile = Profile(next(run.folder.glob("callgrind.out.*")))
        if os.environ.get("BENCH_KEEP"):
            shutil.copy(next(run.folder.glob("callgrind.out.*")), os.environ["BENCH_KEEP"])
    if not count:
        raise stack.StackError("nothing was polled")
    print(f"\n{profile.total / count:,.0f} instructions per poll, {'with its agent' if PLUGIN else 'host alone'}, of {count} polls")
    ours = {name: cost for name, cost in profile.whole.items() if name.startswith(("ollama_fleet", "<ollama_fleet"))}
    for title, costs in (("with all that they call, our own functions", collections.Counter(ours)), ("themselves", profile.own)):
        print(f"\n{title}:\n")
        for name, cost in costs.most_common(SHOWN):
            print(f"{cost / profile.total * 100:5.1f} % {cost / count:9,.0f}  {name[:110]}")


stack.run(main)

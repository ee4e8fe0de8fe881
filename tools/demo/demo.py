"""make demo: a control plane, a simulated fleet and the operator on this machine, and what kubectl shows of it.

DEMO_EXIT=1 ends after printing: with 0 if every row is as examples/demo/expected.tsv says, else with 1.
"""

import json
import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "stack"))
import stack  # noqa: E402

DEMO = stack.ROOT / "examples" / "demo"
PLUGIN = stack.ROOT / "plugins" / "fleet-metrics" / "plugin.yaml"
ADDRESS, OLLAMA_PORT, AGENT_PORT = "127.0.42.1", 20434, 20100
REAL_OLLAMA = "127.0.0.1:11434"
REAL_NAME = "this-machine"
LIMIT = 60
# Servers where the plugin works, of those where it is asked.
PLUGIN_SUMMARY = "7/8"
COLUMNS = ["ready", "status", "version", "loaded", "gpu-temp", "plugins", "pressure"]


def expected():
    rows = {}
    for line in (DEMO / "expected.tsv").read_text().splitlines():
        if line and not line.startswith("#"):
            name, *cells = line.split("\t")
            rows[name] = dict(zip(COLUMNS, cells))
    return rows


def row(server):
    """The cells of one server, as expected.tsv has them."""
    status = server.get("status", {})
    conditions = {condition["type"]: condition for condition in status.get("conditions", [])}
    pressure = [name for name, is_ in conditions.items() if name.endswith("Pressure") and is_["status"] == "True"]
    cells = {
        "ready": conditions.get("Ready", {}).get("status"),
        "status": conditions.get("Ready", {}).get("reason"),
        "version": status.get("version"),
        "loaded": status.get("loadedCount"),
        "gpu-temp": status.get("machine", {}).get("gpuTemperatureCelsius"),
        "plugins": status.get("pluginSummary"),
        "pressure": ",".join(sorted(pressure)) or None,
    }
    return {column: "-" if cell is None else str(cell) for column, cell in cells.items()}


def differences(demo):
    """Lines about what is not as expected; empty if all is."""
    servers = json.loads(demo.kubectl("get", "ollamaservers", "-o", "json"))["items"]
    found = {server["metadata"]["name"]: row(server) for server in servers}
    found.pop(REAL_NAME, None)
    lines = []
    for name, wanted in expected().items():
        cells = found.pop(name, None)
        if cells is None:
            lines.append(f"{name}: no such server")
            continue
        for column in COLUMNS:
            if wanted[column] not in ("*", cells[column]):
                lines.append(f"{name}: {column} is {cells[column]}, expected {wanted[column]}")
    lines += [f"{name}: not expected" for name in found]
    summary = demo.kubectl("get", "fleetplugin", "fleet-metrics", "-o", "jsonpath={.status.servers.summary}")
    if summary != PLUGIN_SUMMARY:
        lines.append(f"fleet-metrics: works on {summary or 'none'}, expected {PLUGIN_SUMMARY}")
    return lines


def add_real_ollama(demo):
    try:
        version = json.loads(stack.get(f"http://{REAL_OLLAMA}/api/version", timeout=2))["version"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    stack.say(f"an Ollama {version} answers at {REAL_OLLAMA}: it is the server {REAL_NAME}")
    server = {
        "apiVersion": "ollama-fleet.io/v1alpha1",
        "kind": "OllamaServer",
        "metadata": {"name": REAL_NAME},
        "spec": {"displayName": "This machine", "host": REAL_OLLAMA, "pluginPorts": {"metricsPort": 0}},
    }
    demo.kubectl("apply", "--server-side", "-f", "-", given=json.dumps(server))


def show(demo, *command):
    print(f"\n$ kubectl {' '.join(command)}")
    print(demo.kubectl(*command).rstrip(), flush=True)


def main():
    programs = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or stack.cache_folder() / "target") / "debug"
    operator = stack.program("OPERATOR_BIN", programs / "ollama-fleet-operator")
    fleetsim = stack.program("FLEETSIM_BIN", programs / "fleetsim")
    with stack.Stack("demo") as demo:
        stack.say("starting the control plane")
        demo.control_plane()
        stack.say("starting a simulated fleet of 8 hosts")
        ports = ["--ollama-port", str(OLLAMA_PORT), "--agent-port", str(AGENT_PORT)]
        demo.fleetsim(
            fleetsim, "--hosts", "8", "--address", ADDRESS, *ports, "--sockets", "own", "--scenario", str(DEMO / "fleet.json")
        )
        stack.say("starting the operator")
        flags = ["--allowed-cidrs=127.0.0.0/8", "--poll-interval=2s", "--min-poll-interval=1s", "--poll-timeout=1s"]
        demo.operator(operator, *flags)
        stack.say(f"applying {PLUGIN.relative_to(stack.ROOT)} and examples/demo/servers.yaml")
        demo.kubectl("apply", "--server-side", "-f", PLUGIN, "-f", DEMO / "servers.yaml")
        add_real_ollama(demo)
        wrong = settle(demo)
        show(demo, "get", "ollamaservers", "-o", "wide")
        show(demo, "get", "fleetplugins")
        show(demo, "get", "events", "--field-selector", "involvedObject.kind=OllamaServer")
        if wrong:
            print("\nerror: after %d s the table is not as expected:\n  %s" % (LIMIT, "\n  ".join(wrong)), file=sys.stderr)
            print(f"The log of the operator ends with:\n{demo.log('operator')}", file=sys.stderr)
            return 1
        if os.environ.get("DEMO_EXIT", "0") not in ("", "0"):
            print("\nEvery row is as expected.")
            return 0
        explain(demo)
        try:
            while not demo.dead():
                time.sleep(1)
        except KeyboardInterrupt:
            stack.say("stopping")
            return 0
        raise stack.StackError(f"{demo.dead()} has ended\n{demo.log(demo.dead())}")


def settle(demo):
    """Waits until the table is as expected; returns what is not."""
    stack.say("waiting for the first verdicts")
    deadline = time.monotonic() + LIMIT
    while True:
        wrong = differences(demo)
        if not wrong or time.monotonic() > deadline:
            return wrong
        if demo.dead():
            raise stack.StackError(f"{demo.dead()} has ended\n{demo.log(demo.dead())}")
        time.sleep(0.5)


def explain(demo):
    print(f"""
The fleet runs until Ctrl-C. In another terminal, from this folder:

  export KUBECONFIG={demo.kubeconfig} PATH=$PWD/target/tools:$PATH
  kubectl get ollamaservers --watch
  kubectl describe ollamaserver closet
  kubectl explain ollamaserver.spec

Let something happen to a host (attic is 0, bench 1, and so on):

  curl -X POST {demo.control}/hosts/0/actions -d '{{"action":"die"}}'       # or revive, reboot
  curl -X POST {demo.control}/hosts/0/actions -d '{{"action":"hot"}}'       # or cool, diskFull
  curl -X POST {demo.control}/hosts/0/actions -d '{{"action":"load","model":"llama3.2:latest"}}'

Metrics: curl http://{demo.api}/metrics    Health: curl http://{demo.health}/readyz
Log:     {demo.folder}/operator.log""", flush=True)


stack.run(main)

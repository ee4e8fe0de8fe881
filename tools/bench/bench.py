"""make bench: what a fleet costs. Prints a table in Markdown.

A control plane, a simulated fleet with one agent per host, and the release binary of the operator as users run it, all on
this machine; the figures are the operator's own. Variables: BENCH_SERVERS (1000), BENCH_SECONDS (60, length of the
measurement while nothing changes).
"""

import concurrent.futures
import json
import math
import os
import pathlib
import re
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "stack"))
import stack  # noqa: E402
from api import Api, Watch  # noqa: E402

SERVERS = int(os.environ.get("BENCH_SERVERS", "1000"))
SECONDS = int(os.environ.get("BENCH_SECONDS", "60"))
INTERVAL, TIMEOUT, THRESHOLD = 10, 5, 3
PLUGIN = stack.ROOT / "plugins" / "fleet-metrics" / "plugin.yaml"
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory(pid, field):
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"^{field}:\s+(\d+) kB", text, re.M)[1]) / 1024


def metrics(bench):
    """Every series by its name with labels."""
    series = {}
    for line in stack.get(f"http://{bench.api}/metrics", timeout=30).decode().splitlines():
        if not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            series[name] = float(value)
    return series


def total(series, prefix, *parts):
    return sum(v for name, v in series.items() if name.startswith(prefix) and all(part in name for part in parts))


def writes(series):
    return total(series, "ollama_fleet_status_writes_total", 'kind="OllamaServer"', 'outcome="written"')


def lag_p99(before, after):
    """The bucket that 99 % of the polls between two scrapes are in."""
    prefix = "ollama_fleet_schedule_lag_seconds_bucket"
    buckets = []
    for name, value in after.items():
        if name.startswith(prefix):
            bound = re.search(r'le="([^"]+)"', name)[1]
            buckets.append((math.inf if bound == "+Inf" else float(bound), value - before.get(name, 0)))
    buckets.sort()
    if not buckets or not buckets[-1][1]:
        return "no polls"
    bound = next(bound for bound, count in buckets if count >= 0.99 * buckets[-1][1])
    return "over 5 s" if bound == math.inf else f"≤ {bound * 1000:g} ms"


def quantile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]


def server(name, host, agent_port):
    return {
        "apiVersion": "ollama-fleet.io/v1alpha1",
        "kind": "OllamaServer",
        "metadata": {"name": name},
        "spec": {"host": host, "pluginPorts": {"metricsPort": agent_port}},
    }


def create(api, servers):
    """Creates the objects with four connections; the time of each, from before its request."""
    local = threading.local()
    born = {}

    def one(body):
        if not hasattr(local, "connection"):
            local.connection = api.connection()
        born[body["metadata"]["name"]] = time.monotonic()
        api.call(local.connection, "POST", Api.SERVERS, body)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(one, servers))
    return born


def patiently(bench, what, limit, done):
    deadline = time.monotonic() + limit
    while not done():
        if bench.dead():
            raise stack.StackError(f"{bench.dead()} has ended\n{bench.log(bench.dead())}")
        if time.monotonic() > deadline:
            raise stack.StackError(f"{what}: not within {limit} s")
        time.sleep(0.05)


class Report:
    def __init__(self):
        self.rows = []

    def add(self, what, value, budget=""):
        print(f"    {what}: {value}", flush=True)
        self.rows.append((what, value, budget))

    def table(self):
        rows = [("measure", "value", "budget"), ("---", "---", "---"), *self.rows]
        return "\n".join("| " + " | ".join(row) + " |" for row in rows).replace("| --- | --- | --- |", "|---|---|---|")


def main():
    programs = stack.ROOT / "target" / "release"
    operator = stack.program("OPERATOR_BIN", programs / "ollama-fleet-operator")
    fleetsim = stack.program("FLEETSIM_BIN", programs / "fleetsim")
    report = Report()
    with stack.Stack("bench") as bench:
        stack.say(f"starting a control plane and {SERVERS} simulated hosts")
        bench.control_plane()
        flags = ["--hosts", str(SERVERS), "--address", "127.60.0.1", "--ollama-port", "0", "--agent-port", "0"]
        fleet = bench.fleetsim(fleetsim, *flags, "--sockets", "shared")
        hosts = [host["ollama"] for host in json.loads(stack.get(f"{bench.control}/hosts", timeout=30))]
        measure(bench, report, operator, fleet, hosts)
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    print(f"\n{SERVERS} servers and agents, every {INTERVAL} s, on {os.cpu_count()} cores ({cpu}) that the control plane and")
    print(f"the simulated fleet share:\n\n{report.table()}")


def start(bench, operator):
    bench.operator(
        operator, "--allowed-cidrs=127.0.0.0/8", f"--poll-interval={INTERVAL}s", f"--poll-timeout={TIMEOUT}s",
        f"--failure-threshold={THRESHOLD}",
    )
    return bench.operator_process.pid


def measure(bench, report, operator, fleet, hosts):
    pid = start(bench, operator)
    stack.say("empty cluster")
    time.sleep(5)
    report.add("RSS on an empty cluster", f"{memory(pid, 'VmRSS'):.1f} MiB", "25 MiB")

    stack.say("creating all servers")
    bench.kubectl("apply", "--server-side", "-f", PLUGIN)
    api = Api(bench.kubeconfig)
    watch = Watch(api)
    begin = time.monotonic()
    born = create(api, [server(f"sim-{i:05}", host, fleet["agentPort"]) for i, host in enumerate(hosts)])
    created = time.monotonic() - begin
    patiently(bench, "all are Ready", 60 + SERVERS / 20, lambda: len(watch.first_ready) == SERVERS)
    delays = [watch.first_ready[name] - time_ for name, time_ in born.items()]
    spread = " / ".join(f"{value:.2f} s" for value in (quantile(delays, 0.5), quantile(delays, 0.99), max(delays)))
    report.add("created → Ready, p50 / p99 / max, created by four clients", spread)
    report.add("first object created → all Ready", f"{max(watch.first_ready.values()) - begin:.1f} s (creating took {created:.1f} s)")

    stack.say(f"nothing changes: settling for {3 * INTERVAL} s, then measuring for {SECONDS} s")
    time.sleep(3 * INTERVAL)
    before, cpu, at = metrics(bench), cpu_seconds(pid), time.monotonic()
    polls_before = json.loads(stack.get(f"{bench.control}/stats", timeout=30))["total"]
    time.sleep(SECONDS)
    took = time.monotonic() - at
    cpu = (cpu_seconds(pid) - cpu) / took
    after = metrics(bench)
    requests = json.loads(stack.get(f"{bench.control}/stats", timeout=30))["total"] - polls_before
    report.add("CPU", f"{cpu:.3f} core", "0.4 core at 10,000")
    report.add("RSS now / peak", f"{memory(pid, 'VmRSS'):.0f} / {memory(pid, 'VmHWM'):.0f} MiB", "400 MiB at 10,000")
    report.add("requests to hosts and agents", f"{requests / took:.0f} per s")
    report.add("status writes", f"{(writes(after) - writes(before)) / took:.2f} per s", f"at most {SERVERS / 300:.2f} per s")
    report.add("a poll begins after its slot, p99", lag_p99(before, after))
    at = time.monotonic()
    count = len(json.loads(api.get(Api.SERVERS))["items"])
    report.add(f"LIST of {count}", f"{time.monotonic() - at:.2f} s", "2 s at 10,000")

    dead = max(1, SERVERS // 10)
    stack.say(f"{dead} hosts die, and come back")
    watch.changed.clear()
    at, before = time.monotonic(), writes(metrics(bench))
    bench.simulate("POST", f"hosts/0-{dead - 1}/actions", {"action": "die"})
    bound = THRESHOLD * INTERVAL + TIMEOUT + 1
    patiently(bench, "the dead are offline", 3 * bound, lambda: watch.not_ready() == dead)
    last = max(watch.changed.values()) - at
    report.add(f"{dead} hosts die → last of {dead} verdicts", f"{last:.1f} s", f"{bound} s")
    report.add("status writes for that, per dead host", f"{(writes(metrics(bench)) - before) / dead:.2f}", "2 and heartbeats")
    watch.changed.clear()
    at = time.monotonic()
    bench.simulate("POST", f"hosts/0-{dead - 1}/actions", {"action": "revive"})
    patiently(bench, "they are back", 3 * bound, lambda: watch.not_ready() == 0)
    report.add("they come back → last is Ready", f"{max(watch.changed.values()) - at:.1f} s", f"{INTERVAL + 1} s")

    stack.say("the operator is killed and started again; nothing else changes")
    bench.operator_process.kill()
    bench.operator_process.wait()
    bench.processes.remove(bench.operator_process)
    revisions = dict(watch.revisions)
    start(bench, operator)
    polls = "ollama_fleet_schedule_lag_seconds_count"
    patiently(bench, "every server is polled again", 120, lambda: total(metrics(bench), polls) >= SERVERS)
    # A write takes a moment.
    time.sleep(2)
    rewritten = sum(revisions.get(name) != revision for name, revision in watch.revisions.items())
    report.add("restart: statuses written until each host was polled", str(rewritten), "0 and heartbeats that were due")


if SERVERS < 10:
    sys.exit("error: BENCH_SERVERS must be at least 10")
stack.run(main)

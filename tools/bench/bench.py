"""make bench: what a fleet costs. Prints a table in Markdown.

A control plane, a simulated fleet with one agent per host, and the release binary of the operator as users run it, all on
this machine; the figures are the operator's own, and those of the others stand beside them. Variables: BENCH_SERVERS
(1000,10000: the sizes to measure, one after the other), BENCH_SECONDS (300, length of the measurement while nothing
changes; in less than 300 not every object has its heartbeat). /metrics is scraped every 30 s throughout.
"""

import concurrent.futures
import json
import os
import pathlib
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "stack"))
import stack  # noqa: E402
from api import Api, Watch  # noqa: E402
from hotspots import hotspots  # noqa: E402
from measure import Cpu, Metrics, Report, Scraper, machine_busy, memory, quantile  # noqa: E402

SIZES = [int(size) for size in os.environ.get("BENCH_SERVERS", "1000,10000").split(",")]
SECONDS = int(os.environ.get("BENCH_SECONDS", "300"))
INTERVAL, TIMEOUT, THRESHOLD = 10, 5, 3
HEARTBEAT, SCRAPE_EVERY, PROFILE_SECONDS = 300, 30, 20
PLUGIN = stack.ROOT / "plugins" / "fleet-metrics" / "plugin.yaml"

# The control plane collects its garbage twice as often as real ones, to be small beside the tests; here it is not.
os.environ.setdefault("GOGC", "100")


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

    pool = concurrent.futures.ThreadPoolExecutor(4)
    try:
        list(pool.map(one, servers))
    finally:
        # Ctrl-C does not wait for thousands of objects.
        pool.shutdown(cancel_futures=True)
    return born


class Bench:
    """One size of fleet, from an empty cluster to a restart with everything there."""

    def __init__(self, run, report, size):
        self.run, self.report, self.size = run, report, size
        self.operator = stack.program("OPERATOR_BIN", stack.ROOT / "target" / "release" / "ollama-fleet-operator")
        self.simulator = stack.program("FLEETSIM_BIN", stack.ROOT / "target" / "release" / "fleetsim")
        self.busy = 0.0

    def measure(self):
        stack.say(f"{self.size} servers: starting a control plane and simulated hosts")
        self.run.control_plane()
        flags = ["--hosts", str(self.size), "--address", "127.60.0.1", "--ollama-port", "0", "--agent-port", "0"]
        self.fleet = self.run.fleetsim(self.simulator, *flags, "--sockets", "shared")
        self.begin()
        stack.say("empty cluster")
        time.sleep(5)
        self.report.add("RSS on an empty cluster", f"{memory(self.pid, 'VmRSS'):.1f} MiB", "25 MiB")
        self.api = Api(self.run.kubeconfig)
        self.watch = Watch(self.api)
        self.create()
        self.rest("host polls alone", min(SECONDS, 60))
        stack.say("the plugin fleet-metrics is applied, and every host has its agent")
        self.run.kubectl("apply", "--server-side", "-f", PLUGIN)
        self.settle()
        scrapes = self.rest("with an agent each", SECONDS)
        slowest = max(scrapes, key=lambda scrape: scrape.took)
        self.report.add("/metrics, slowest scrape", f"{slowest.took * 1000:.0f} ms, {slowest.size / 1e6:.1f} MB")
        self.read()
        stack.say(f"where the operator spends its CPU, in {PROFILE_SECONDS} s")
        self.hotspots = hotspots(self.pid, PROFILE_SECONDS, self.run.folder)
        self.death()
        self.restart()

    def begin(self):
        flags = ["--allowed-cidrs=127.0.0.0/8", f"--poll-interval={INTERVAL}s", f"--poll-timeout={TIMEOUT}s"]
        self.run.operator(self.operator, *flags, f"--failure-threshold={THRESHOLD}")
        self.pid = self.run.operator_process.pid

    def metrics(self):
        return Metrics(self.run.api)

    def patiently(self, what, limit, done, pause=0.05):
        deadline = time.monotonic() + limit
        while not done():
            if self.run.dead():
                raise stack.StackError(f"{self.run.dead()} has ended\n{self.run.log(self.run.dead())}")
            if time.monotonic() > deadline:
                raise stack.StackError(f"{what}: not within {limit:.0f} s")
            time.sleep(pause)

    def create(self):
        stack.say("creating all servers")
        hosts = [host["ollama"] for host in json.loads(stack.get(f"{self.run.control}/hosts", timeout=30))]
        begin = time.monotonic()
        port = self.fleet["agentPort"]
        born = create(self.api, [server(f"sim-{i:05}", host, port) for i, host in enumerate(hosts)])
        created = time.monotonic() - begin
        self.patiently("all are Ready", 60 + self.size / 20, lambda: len(self.watch.first_ready) == self.size)
        delays = [self.watch.first_ready[name] - time_ for name, time_ in born.items()]
        spread = " / ".join(f"{value:.1f} s" for value in (quantile(delays, 0.5), quantile(delays, 0.99), max(delays)))
        self.report.add("created → Ready, p50 / p99 / max, created by four clients", spread)
        took = max(self.watch.first_ready.values()) - begin
        self.report.add("first object created → all Ready (creating alone)", f"{took:.0f} s ({created:.0f} s)")

    def settle(self):
        """Waits until an interval passes without a write, or for long enough."""
        deadline, before = time.monotonic() + 60 + self.size / 40, -1
        while time.monotonic() < deadline:
            now = self.metrics().writes
            if now == before:
                return
            before = now
            time.sleep(INTERVAL)

    def requests(self):
        return json.loads(stack.get(f"{self.run.control}/stats", timeout=60))["total"]

    def rest(self, name, seconds):
        """What it takes to see that nothing changes."""
        stack.say(f"nothing changes, {name}: {2 * INTERVAL} s to settle, then {seconds} s")
        time.sleep(2 * INTERVAL)
        pids = {process.name: process.pid for process in self.run.processes}
        requests = self.requests()
        scraper = Scraper(self.run.api, SCRAPE_EVERY)
        before, busy, at = self.metrics(), machine_busy(), time.monotonic()
        cpu = {name: Cpu(pid) for name, pid in pids.items()}
        time.sleep(seconds)
        used = {}
        for process, pid in pids.items():
            now, then = Cpu(pid), cpu[process]
            used[process] = (now.user - then.user, now.system - then.system)
        after, took = self.metrics(), time.monotonic() - at
        busy = (machine_busy() - busy - sum(map(sum, used.values()))) / took
        self.busy = max(self.busy, busy)
        scrapes = scraper.stop()
        requests = self.requests() - requests
        user, system = (seconds / took for seconds in used["operator"])
        share = f"{user + system:.3f} core ({user:.3f} + {system:.3f})"
        self.report.add(f"**CPU, {name}** (user + kernel)", share, "0.4 core at 10,000")
        both = f"{memory(self.pid, 'VmRSS'):.0f} / {memory(self.pid, 'VmHWM'):.0f} MiB"
        self.report.add(f"**RSS now / peak, {name}**", both, "400 MiB at 10,000")
        self.report.add(f"requests, {name}", f"{requests / took:.0f} per s")
        written = after.writes - before.writes
        per_object = f"{written / took:.2f} per s, {written / self.size * HEARTBEAT / took:.2f} per object in 5 min"
        self.report.add(f"status writes, {name}", per_object, "one per object in 5 min")
        self.report.add(f"a poll begins after its slot, p99, {name}", after.lag_p99(before))
        for process in ("control-plane", "fleetsim"):
            cost = f"{sum(used[process]) / took:.2f} core, {memory(pids[process], 'VmRSS'):.0f} MiB"
            self.report.add(f"beside it: {process}, {name}", cost)
        self.report.add(f"beside it: all else on the machine, {name}", f"{busy:.2f} core")
        return scrapes

    def read(self):
        at = time.monotonic()
        answer = self.api.get(Api.SERVERS)
        self.report.add("LIST of all", f"{time.monotonic() - at:.2f} s, {len(answer) / 1e6:.0f} MB", "2 s at 10,000")
        count = len(json.loads(answer)["items"])
        if count != self.size:
            raise stack.StackError(f"the list has {count} servers")
        at = time.monotonic()
        self.run.kubectl("get", "ollamaservers")
        self.report.add("`kubectl get ollamaservers`", f"{time.monotonic() - at:.2f} s")

    def death(self):
        dead = max(1, self.size // 10)
        stack.say(f"{dead} hosts die, and come back")
        self.watch.changed.clear()
        at, before = time.monotonic(), self.metrics()
        self.run.simulate("POST", f"hosts/0-{dead - 1}/actions", {"action": "die"})
        bound = THRESHOLD * INTERVAL + TIMEOUT + 1
        self.patiently("the dead are offline", 3 * bound, lambda: self.watch.not_ready() == dead)
        after = self.metrics()
        last = max(self.watch.changed.values()) - at
        self.report.add("a tenth of the hosts dies → last verdict", f"{last:.1f} s", f"{bound} s")
        writes = f"{(after.writes - before.writes) / dead:.2f}"
        self.report.add("status writes for that, per dead host", writes, "2 and heartbeats")
        delays = f"{after.lag_p99(before)}, {after.skipped - before.skipped:.0f} skipped"
        self.report.add("a poll begins after its slot meanwhile, p99", delays, "as before")
        self.watch.changed.clear()
        at = time.monotonic()
        self.run.simulate("POST", f"hosts/0-{dead - 1}/actions", {"action": "revive"})
        self.patiently("they are back", 3 * bound, lambda: self.watch.not_ready() == 0)
        self.report.add("they come back → last is Ready", f"{max(self.watch.changed.values()) - at:.1f} s", f"{INTERVAL + 1} s")

    def restart(self):
        # What is under way is written first: it would be a write after the restart otherwise.
        self.settle()
        stack.say("the operator is killed and started again; nothing else changes")
        self.run.operator_process.kill()
        self.run.operator_process.wait()
        self.run.processes.remove(self.run.operator_process)
        time.sleep(1)
        self.watch.confirmed.clear()
        at = time.monotonic()
        self.begin()
        self.patiently("every server is polled again", 120, lambda: self.metrics().polls >= self.size, 0.2)
        took, cpu = time.monotonic() - at, Cpu(self.pid).all
        # A write takes a moment.
        time.sleep(2)
        confirmed = list(self.watch.confirmed.values())
        due = sum(seconds >= HEARTBEAT for seconds in confirmed)
        self.report.add("restart → every host was polled again", f"{took:.1f} s, {cpu:.1f} s of CPU")
        self.report.add("status writes for that, and heartbeats that were due", f"{len(confirmed) - due} and {due}", "0 and those")
        self.report.add("peak RSS for that", f"{memory(self.pid, 'VmHWM'):.0f} MiB", "400 MiB at 10,000")


def main():
    report = Report()
    spots, busy = {}, 0.0
    for size in SIZES:
        report.begin(size)
        with stack.Stack("bench") as run:
            bench = Bench(run, report, size)
            bench.measure()
            spots[size], busy = bench.hotspots, max(busy, bench.busy)
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    print(f"\nServers and agents, every {INTERVAL} s, on {os.cpu_count()} cores ({cpu}) that the control plane and the simulated")
    print(f"fleet share; {SECONDS} s at rest:\n\n{report.table()}")
    if busy > 0.2:
        print(f"\nOther programs took up to {busy:.1f} core meanwhile: the CPU and memory above are the operator's own all the")
        print("same, the times are longer than on an idle machine.")
    for size, lines in spots.items():
        print(f"\nWhere the CPU in user space went, {size} servers with agents:\n\n```text")
        print("\n".join(lines) + "\n```")


if any(size < 10 for size in SIZES):
    sys.exit("error: BENCH_SERVERS must be at least 10, or several such numbers with commas")
stack.run(main)

"""make soak: a fleet that never rests, for SOAK_MINUTES (10), and what the operator leaves behind. Ends with 1 if a bound
is broken.

SOAK_SERVERS (300) servers with an agent each are polled every second, ten times as often as in life, while every second
one in a hundred of them dies, returns, reboots, loads or unloads a model, is edited, relabelled, or deleted and made
again. Memory and descriptors must not grow, nothing may panic, and in the end every status must say what is true.
Below five minutes growth is not judged: the process is still warming up.
"""

import json
import os
import pathlib
import random
import re
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "stack"))
import stack  # noqa: E402
from api import Api, Watch  # noqa: E402

SERVERS = int(os.environ.get("SOAK_SERVERS", "300"))
SECONDS = float(os.environ.get("SOAK_MINUTES", "10")) * 60
SEED = int(os.environ.get("SOAK_SEED", "1"))
PLUGIN = stack.ROOT / "plugins" / "fleet-metrics" / "plugin.yaml"
# Shorter runs say nothing of growth.
JUDGED_FROM = 300
# What an allocator may keep, and what a leak of a kilobyte a change would exceed within ten minutes.
GROWTH_MIB_PER_MINUTE = 0.5
# The writer's own bound is 100 a second.
WRITES_PER_SECOND = 100
# 5,000 pieces of news a minute would be a storm; one in a hundred servers a second is far from it.
CATCH_UP = 90


def status_field(pid, field):
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"^{field}:\s+(\d+)", text, re.M)[1])


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def metrics(soak):
    series = {}
    for line in stack.get(f"http://{soak.api}/metrics", timeout=30).decode().splitlines():
        if not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            series[name] = float(value)
    return series


def total(series, prefix, *parts):
    return sum(value for name, value in series.items() if name.startswith(prefix) and all(part in name for part in parts))


def slope(samples):
    """Units a minute, by least squares over (second, value)."""
    count = len(samples)
    mean_x = sum(x for x, _ in samples) / count
    mean_y = sum(y for _, y in samples) / count
    spread = sum((x - mean_x) ** 2 for x, _ in samples)
    return 60 * sum((x - mean_x) * (y - mean_y) for x, y in samples) / spread if spread else 0.0


class Churn:
    """What happens to the fleet; `dead` is the truth that statuses are compared with."""

    def __init__(self, soak, api, hosts, agent_port):
        self.soak, self.api, self.hosts, self.agent_port = soak, api, hosts, agent_port
        self.connection = api.connection()
        self.dead = set()
        self.loaded = set()
        self.done = {}
        self.number = 0

    def server(self, index):
        return {
            "apiVersion": "ollama-fleet.io/v1alpha1",
            "kind": "OllamaServer",
            "metadata": {"name": f"sim-{index:05}"},
            "spec": {"host": self.hosts[index], "pluginPorts": {"metricsPort": self.agent_port}},
        }

    def act(self, index, action, **fields):
        self.soak.simulate("POST", f"hosts/{index}/actions", {"action": action, **fields})

    def patch(self, index, body):
        path = f"{Api.SERVERS}/sim-{index:05}"
        self.connection.request("PATCH", path, json.dumps(body), {"Content-Type": "application/merge-patch+json"})
        answer = self.connection.getresponse()
        data = answer.read()
        if answer.status >= 300:
            raise stack.StackError(f"PATCH {path}: {answer.status}: {data.decode(errors='replace')[:300]}")

    def create(self, index):
        self.api.call(self.connection, "POST", Api.SERVERS, self.server(index))

    def one(self):
        index = random.randrange(len(self.hosts))
        self.number += 1
        if index in self.dead:
            what = "revive"
            self.act(index, what)
            self.dead.discard(index)
        elif index in self.loaded and random.random() < 0.5:
            what = "unload"
            self.act(index, what, model="soak:latest")
            self.loaded.discard(index)
        else:
            what = random.choice(["die", "load", "reboot", "edit", "relabel", "recreate"])
            if what == "die":
                self.act(index, what)
                self.dead.add(index)
            elif what == "load":
                self.act(index, "pull", model="soak:latest", sizeBytes=1 << 20)
                self.act(index, "load", model="soak:latest", expires="forever")
                self.loaded.add(index)
            elif what == "reboot":
                self.act(index, what)
                self.loaded.discard(index)
            elif what == "edit":
                self.patch(index, {"spec": {"displayName": f"edit {self.number}"}})
            elif what == "relabel":
                self.patch(index, {"metadata": {"labels": {"edit": str(self.number)}}})
            else:
                self.api.call(self.connection, "DELETE", f"{Api.SERVERS}/sim-{index:05}")
                self.create(index)
        self.done[what] = self.done.get(what, 0) + 1


def wrong(api, dead):
    """Statuses that do not say what is true, as words."""
    said = []
    for item in json.loads(api.get(Api.SERVERS))["items"]:
        index = int(item["metadata"]["name"].rsplit("-", 1)[1])
        conditions = {one["type"]: one for one in item.get("status", {}).get("conditions", [])}
        ready = conditions.get("Ready", {}).get("status")
        if ready != ("False" if index in dead else "True"):
            said.append(f"{item['metadata']['name']} is Ready={ready}")
    return said


def patiently(soak, what, limit, done):
    deadline = time.monotonic() + limit
    while (left := done()) != 0:
        if soak.dead():
            raise stack.StackError(f"{soak.dead()} has ended\n{soak.log(soak.dead())}")
        if time.monotonic() > deadline:
            raise stack.StackError(f"{what}: not within {limit} s: {left}")
        time.sleep(0.2)


def main():
    random.seed(SEED)
    programs = stack.ROOT / "target" / "release"
    operator = stack.program("OPERATOR_BIN", programs / "ollama-fleet-operator")
    fleetsim = stack.program("FLEETSIM_BIN", programs / "fleetsim")
    with stack.Stack("soak") as soak:
        stack.say(f"{SERVERS} servers, {SECONDS / 60:g} minutes, seed {SEED}")
        soak.control_plane()
        flags = ["--hosts", str(SERVERS), "--address", "127.61.0.1", "--ollama-port", "0", "--agent-port", "0"]
        fleet = soak.fleetsim(fleetsim, *flags)
        hosts = [host["ollama"] for host in json.loads(stack.get(f"{soak.control}/hosts", timeout=30))]
        soak.operator(operator, "--allowed-cidrs=127.0.0.0/8", "--min-poll-interval=1s", "--poll-interval=1s")
        return run(soak, hosts, fleet["agentPort"])


def run(soak, hosts, agent_port):
    pid = soak.operator_process.pid
    soak.kubectl("apply", "--server-side", "-f", PLUGIN)
    api = Api(soak.kubeconfig)
    watch = Watch(api)
    churn = Churn(soak, api, hosts, agent_port)
    for index in range(SERVERS):
        churn.create(index)
    patiently(soak, "all are Ready", 60 + SERVERS / 5, lambda: SERVERS - len(watch.first_ready))

    stack.say("the fleet lives")
    before = metrics(soak)
    begin = time.monotonic()
    rss, open_files, life = [], [], 0
    rate = max(1, SERVERS // 100)
    while (second := time.monotonic() - begin) < SECONDS:
        for _ in range(rate):
            churn.one()
        if soak.dead():
            raise stack.StackError(f"{soak.dead()} has ended\n{soak.log(soak.dead())}")
        stack.get(f"http://{soak.health}/livez")
        life += 1
        rss.append((second, status_field(pid, "VmRSS") / 1024))
        open_files.append((second, descriptors(pid)))
        time.sleep(max(0.0, life - (time.monotonic() - begin)))

    stack.say("the fleet rests, and every status must say what is true")
    at = time.monotonic()
    patiently(soak, "every status is true", CATCH_UP, lambda: wrong(api, churn.dead) or 0)
    caught_up = time.monotonic() - at
    after = metrics(soak)
    took = time.monotonic() - begin

    def grown(prefix, *parts):
        return total(after, prefix, *parts) - total(before, prefix, *parts)

    # The first half warms up.
    late = [sample for sample in rss if sample[0] >= SECONDS / 2]
    late_files = [sample for sample in open_files if sample[0] >= SECONDS / 2]
    memory_slope, file_slope = slope(late), slope(late_files)
    writes = grown("ollama_fleet_status_writes_total", 'outcome="written"') / took
    panics = total(after, "ollama_fleet_panics_total")
    panicked = "panicked" in (soak.folder / "operator.log").read_text()
    polls = grown("ollama_fleet_schedule_lag_seconds_count") / took
    lost = sum(
        grown("ollama_fleet_events_total", f'outcome="{outcome}"') for outcome in ("dropped", "refused", "forbidden")
    )
    print(f"    changes: {sum(churn.done.values())} {json.dumps(churn.done, sort_keys=True)}")
    print(f"    polls: {polls:.0f} per s, skipped {grown('ollama_fleet_server_polls_skipped_total'):.0f}")
    print(f"    status writes: {writes:.1f} per s; Events lost: {lost:.0f}; errors of watches: {grown('ollama_fleet_watch_errors_total'):.0f}")
    print(f"    every status true {caught_up:.1f} s after the last change")
    print(f"    RSS: {rss[0][1]:.0f} MiB at first, {rss[-1][1]:.0f} at last, {max(v for _, v in rss):.0f} at most, {memory_slope:+.2f} MiB per minute in the second half")
    print(f"    descriptors: {open_files[0][1]} at first, {open_files[-1][1]} at last, {max(v for _, v in open_files)} at most, {file_slope:+.1f} per minute in the second half")

    broken = []
    if panics or panicked:
        broken.append(f"{panics:.0f} panics")
    if writes > WRITES_PER_SECOND:
        broken.append(f"{writes:.0f} writes per s")
    if lost:
        broken.append(f"{lost:.0f} Events lost")
    if total(after, "ollama_fleet_status_write_queue") > SERVERS:
        broken.append("more statuses wait than there are servers")
    if SECONDS >= JUDGED_FROM:
        if memory_slope > GROWTH_MIB_PER_MINUTE:
            broken.append(f"memory grows by {memory_slope:.2f} MiB per minute")
        if file_slope > SERVERS / 100:
            broken.append(f"descriptors grow by {file_slope:.1f} per minute")
    for text in broken:
        print(f"error: {text}", file=sys.stderr)
    if not broken:
        stack.say("all bounds held")
    return 1 if broken else 0


stack.run(main)

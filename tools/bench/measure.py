"""Reading what a process costs and what the operator's metrics say, and the table of it. Standard library only."""

import math
import os
import pathlib
import re
import threading
import time

import stack

TICKS = os.sysconf("SC_CLK_TCK")
# Names as they are in ollama_fleet_…
LAG = "schedule_lag_seconds"
LAG_COUNT = f"{LAG}_count"


class Cpu:
    """CPU seconds of a process up to now, by who spent them."""

    def __init__(self, pid):
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        self.user, self.system = int(fields[11]) / TICKS, int(fields[12]) / TICKS

    @property
    def all(self):
        return self.user + self.system


def machine_busy():
    """CPU seconds of the whole machine that were not idle."""
    fields = [int(field) for field in pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, _idle, _iowait, irq, softirq, _steal = fields
    return (user + nice + system + irq + softirq) / TICKS


def memory(pid, field):
    """MiB."""
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"^{field}:\s+(\d+) kB", text, re.M)[1]) / 1024


class Metrics:
    """One scrape of the operator."""

    def __init__(self, address):
        at = time.monotonic()
        text = stack.get(f"http://{address}/metrics", timeout=60).decode()
        self.took, self.size = time.monotonic() - at, len(text)
        self.series = {}
        for line in text.splitlines():
            # Those of single servers are many and of no use here.
            if not line.startswith("#") and "server=" not in line:
                name, value = line.rsplit(" ", 1)
                self.series[name.removeprefix("ollama_fleet_")] = float(value)

    def total(self, prefix, *parts):
        found = (v for name, v in self.series.items() if name.startswith(prefix) and all(part in name for part in parts))
        return sum(found)

    @property
    def writes(self):
        return self.total("status_writes_total", 'kind="OllamaServer"', 'outcome="written"')

    @property
    def polls(self):
        return self.total(LAG_COUNT)

    @property
    def skipped(self):
        return self.total("server_polls_skipped_total")

    def lag_p99(self, before):
        """The bucket that 99 % of the polls since an earlier scrape are in."""
        buckets = []
        for name, value in self.series.items():
            if name.startswith(f"{LAG}_bucket"):
                bound = re.search(r'le="([^"]+)"', name)[1]
                buckets.append((math.inf if bound == "+Inf" else float(bound), value - before.series.get(name, 0)))
        buckets.sort()
        if not buckets or not buckets[-1][1]:
            return "no polls"
        bound = next(bound for bound, count in buckets if count >= 0.99 * buckets[-1][1])
        return "over 5 s" if bound == math.inf else f"≤ {bound * 1000:g} ms"


class Scraper:
    """Scrapes the operator every so often, as Prometheus would, until it is stopped."""

    def __init__(self, address, every):
        self.scrapes = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(address, every), daemon=True)
        self._thread.start()

    def _run(self, address, every):
        while not self._stop.is_set():
            try:
                self.scrapes.append(Metrics(address))
            except OSError:
                pass
            self._stop.wait(every)

    def stop(self):
        self._stop.set()
        self._thread.join()
        return self.scrapes


def quantile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]


class Report:
    """A row for each measure, a column for each size of fleet."""

    def __init__(self):
        self.sizes = []
        self.rows = {}

    def begin(self, size):
        self.sizes.append(size)

    def add(self, what, value, budget=""):
        print(f"    {what}: {value}", flush=True)
        values, _ = self.rows.setdefault(what, ({}, budget))
        values[self.sizes[-1]] = value

    def table(self):
        lines = [["measure", *(f"{size:,} servers" for size in self.sizes), "budget"], ["---"] * (len(self.sizes) + 2)]
        for what, (values, budget) in self.rows.items():
            lines.append([what, *(values.get(size, "") for size in self.sizes), budget])
        return "\n".join("|" + "|".join(row) + "|" if row[0] == "---" else "| " + " | ".join(row) + " |" for row in lines)

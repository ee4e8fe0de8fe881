#!/usr/bin/env python3
"""fleet-metrics: what a machine that runs Ollama can tell about itself, as JSON.

GET /metrics answers at once, always: whatever may be slow (nvidia-smi, `last`, a sensor, a
network disk) is read by a thread of its own and only its last fresh result is served. What is
not known is null or absent, never a zero. Python 3.8 or newer, standard library only, Linux.
"""

import argparse
import datetime
import glob
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

VERSION = "1.0.0"
DEFAULT_PORT = 9100

# One connection may last this long, and this many may be open at once. The oldest makes room
# for a newcomer: an honest request takes milliseconds, so the oldest is the stalled one.
CONNECTION_SECONDS = 5.0
MAX_CONNECTIONS = 16

CPU_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal")
# Intel, Raspberry Pi, NVIDIA's boards, Snapdragon (cpu0-thermal, cpu-0-0-thermal, cpu0-0-top-thermal),
# RK3588 (bigcore0-thermal), other boards of Rockchip.
CPU_ZONES = re.compile(
    r"^(x86_pkg_temp|cpu|cpu[-_\w]*[-_](thermal|therm)|(big|little)[-_]?core\d*[-_]thermal|soc[-_]thermal)$",
    re.IGNORECASE,
)
# What nvidia-smi prints for a number that it does not know: "[N/A]", "[Not Supported]",
# "[Insufficient Permissions]", "[GPU is lost]", "N/A", "ERR!".
UNKNOWN_CELL = re.compile(r"^(\[[^\[\]]+\]|N/A|ERR!)$")
# The usual places of the models; OLLAMA_MODELS overrules them.
MODEL_FOLDERS = ("/usr/share/ollama/.ollama/models", "/var/lib/ollama/models", "~/.ollama/models")


def read_text(path):
    """The content of a small file without surrounding space, or None."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(65536).strip()
    except OSError:
        return None


def to_float(text):
    try:
        number = float(text)
    except (TypeError, ValueError):
        return None
    # NaN and infinities are not JSON.
    return number if -1e18 < number < 1e18 else None


def celsius(text):
    """Millidegrees of sysfs as degrees; None for what an absent sensor reports."""
    number = to_float(text)
    if number is None:
        return None
    degrees = round(number / 1000.0, 1)
    # Unplugged sensors say 0, -274 or 255; no running chip is there.
    return degrees if -40.0 < degrees < 150.0 and degrees != 0 else None


def known(values):
    return [value for value in values if value is not None]


def highest(values):
    return max(known(values), default=None)


def run_tool(command, timeout, may_fail=False):
    """Standard output of a command, or None if it is missing, takes too long, or fails and may not."""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=dict(os.environ, LC_ALL="C"),
            start_new_session=True,
        )
    except OSError:
        return None
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        # The whole group: a child that keeps the pipe open would hold us as well.
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except OSError:
            pass
        process.communicate()
        return None
    if process.returncode != 0 and not may_fail:
        return None
    return output.decode("utf-8", "replace")


class Background:
    """Calls `read` every `period` seconds on a thread of its own and keeps the last result.

    A result older than `max_age` is None again: a sensor that hangs must not go on telling
    what it said an hour ago.
    """

    def __init__(self, read, period, max_age):
        self._read = read
        self._period = period
        self._max_age = max_age
        self._result = (None, 0.0)
        self.ready = threading.Event()

    def start(self):
        threading.Thread(target=self._loop, daemon=True).start()
        return self

    def value(self):
        value, at = self._result
        return value if time.monotonic() - at <= self._max_age else None

    def _loop(self):
        while True:
            try:
                value = self._read()
            except Exception as error:  # a strange machine must not end the agent
                print("fleet-metrics: %s" % error, file=sys.stderr, flush=True)
                value = None
            self._result = (value, time.monotonic())
            self.ready.set()
            time.sleep(self._period)


class Machine:
    """Everything read from the machine. Paths are below `root`, so that tests can make one up."""

    def __init__(self, root="/"):
        self.root = root.rstrip("/")
        self._last_cpu = None

    def path(self, path):
        return self.root + path

    def text(self, path):
        return read_text(self.path(path))

    def hostname(self):
        return self.text("/proc/sys/kernel/hostname") or self.text("/etc/hostname") or None

    def uptime(self):
        return to_float((self.text("/proc/uptime") or "").split(" ")[0])

    def boot_time(self):
        # btime does not jitter as `now - uptime` does, so it is the better witness of a reboot.
        found = re.search(r"^btime (\d+)$", self.text("/proc/stat") or "", re.MULTILINE)
        uptime = self.uptime()
        if found:
            seconds = int(found.group(1))
        elif uptime is not None:
            seconds = int(time.time() - uptime)
        else:
            return None
        moment = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ")

    def memory(self):
        lines = re.findall(r"^(\w+):\s+(\d+) kB$", self.text("/proc/meminfo") or "", re.MULTILINE)
        if not lines:
            return None
        mb = {name: int(value) / 1024.0 for name, value in lines}

        def used(total, free):
            return mb[total] - mb[free] if total in mb and free in mb else None

        answer = {
            "total_mb": mb.get("MemTotal"),
            "used_mb": used("MemTotal", "MemAvailable"),
            "available_mb": mb.get("MemAvailable"),
            "swap_total_mb": mb.get("SwapTotal"),
            "swap_used_mb": used("SwapTotal", "SwapFree"),
        }
        return {key: None if value is None else round(value, 1) for key, value in answer.items()}

    def load(self):
        numbers = known(to_float(part) for part in (self.text("/proc/loadavg") or "").split()[:3])
        return numbers if len(numbers) == 3 else None

    def cpu_percent(self):
        """Share of time not idle since the last call; None on the first."""
        first = (self.text("/proc/stat") or "").split("\n")[0].split()
        ticks = known(to_float(part) for part in first[1:9])
        if first[:1] != ["cpu"] or len(ticks) < 4:
            return None
        total, idle = sum(ticks), sum(ticks[3:5])
        last, self._last_cpu = self._last_cpu, (total, idle)
        if last is None or total <= last[0]:
            return None
        busy = 100.0 * (1.0 - (idle - last[1]) / (total - last[0]))
        return round(min(100.0, max(0.0, busy)), 1)

    def temperatures(self):
        """`cpu` and every `thermal_zoneN`; the sensor in the chip beats a zone of the board."""
        zones, cpu_zones = {}, []
        for folder in sorted(glob.glob(self.path("/sys/class/thermal/thermal_zone*"))):
            degrees = celsius(read_text(folder + "/temp"))
            if degrees is None:
                continue
            zones[os.path.basename(folder)] = degrees
            if CPU_ZONES.match(read_text(folder + "/type") or ""):
                cpu_zones.append(degrees)
        cpu = highest(self._cpu_sensors())
        if cpu is None:
            cpu = highest(cpu_zones)
        if cpu is not None:
            zones["cpu"] = cpu
        return zones

    def _cpu_sensors(self):
        for folder in glob.glob(self.path("/sys/class/hwmon/hwmon*")):
            if read_text(folder + "/name") not in CPU_SENSORS:
                continue
            named = {}
            for file in glob.glob(folder + "/temp*_input"):
                label = read_text(file[: -len("_input")] + "_label") or ""
                named.setdefault(label.split(" ")[0], []).append(celsius(read_text(file)))
            # The package, not a core; the true die (Tdie), not Tctl with its offset for fans.
            for label in ("Package", "Tdie", "Tctl"):
                if known(named.get(label, [])):
                    yield highest(named[label])
                    break
            else:
                yield highest(degrees for group in named.values() for degrees in group)

    def gpus(self, timeout=3.0):
        found = self._nvidia(timeout) + self._amd()
        for index, gpu in enumerate(found):
            gpu["index"] = index
        return found

    def _nvidia(self, timeout):
        fields = "name,temperature.gpu,utilization.gpu,memory.total,memory.used"
        # Its code is not 0 also where it has printed rows: 14 for a corrupt infoROM, 15 for one GPU
        # that is lost among others.
        output = run_tool(
            ["nvidia-smi", "--query-gpu=" + fields, "--format=csv,noheader,nounits"],
            timeout,
            may_fail=True,
        )
        rows = (nvidia_row(line) for line in (output or "").splitlines())
        return [row for row in rows if row is not None]

    def _amd(self):
        found = []
        for card in sorted(glob.glob(self.path("/sys/class/drm/card*/device"))):
            if not re.search(r"/card\d+/device$", card) or read_text(card + "/vendor") != "0x1002":
                continue

            def mb(name, card=card):
                size = to_float(read_text(card + "/" + name))
                return None if size is None else round(size / 1048576.0, 1)

            degrees = [
                celsius(read_text(file))
                for file in sorted(glob.glob(card + "/hwmon/hwmon*/temp1_input"))
            ]
            entry = gpu_entry(
                "amd",
                read_text(card + "/product_name") or None,
                highest(degrees),
                to_float(read_text(card + "/gpu_busy_percent")),
                mb("mem_info_vram_total"),
                mb("mem_info_vram_used"),
            )
            found.append(entry)
        return found

    def disk(self, path):
        """Size and use of the file system that holds `path`; None if it cannot be reached."""
        try:
            stat = os.statvfs(path)
        except OSError:
            return None
        if stat.f_blocks == 0:
            return None
        used, free = stat.f_blocks - stat.f_bfree, stat.f_bavail
        sizes = {"total_gb": stat.f_blocks, "used_gb": used, "free_gb": free}
        answer = {key: round(n * stat.f_frsize / 1073741824.0, 3) for key, n in sizes.items()}
        answer["used_percent"] = used_percent(used, free)
        return answer

    def root_disk(self):
        return self.disk(self.path("/"))

    def models_disk(self):
        chosen = os.environ.get("OLLAMA_MODELS")
        for folder in [chosen] if chosen else MODEL_FOLDERS:
            folder = self.path(os.path.expanduser(folder))
            # A folder that cannot be seen is unknown: its parent may be another disk.
            if os.path.isdir(folder):
                return self.disk(folder)
        return None

    def boots(self):
        """The last ten boots, newest first, and why each came to be, as far as was recorded."""
        output = run_tool(["last", "-x", "-F", "-n", "40", "reboot", "shutdown"], 10.0)
        recent, causes = parse_last(output or "")
        if not recent:
            output = run_tool(["journalctl", "--list-boots", "--no-pager", "--quiet"], 20.0)
            recent = parse_journal(output or "")
        return recent[:10], {boot: causes[boot] for boot in recent[:10] if boot in causes}


def gpu_entry(vendor, name, degrees, percent, total, used):
    return {
        "vendor": vendor,
        "name": name,
        "temperature_celsius": degrees,
        "percent": percent,
        "memory_total_mb": total,
        "memory_used_mb": used,
    }


def nvidia_row(line):
    """A line of nvidia-smi's CSV as a GPU; None for whatever else it prints, such as a warning."""
    cells = [cell.strip() for cell in line.rsplit(",", 4)]
    if len(cells) != 5 or not cells[0]:
        return None
    numbers = [to_float(cell) for cell in cells[1:]]
    if any(n is None and not UNKNOWN_CELL.match(cell) for n, cell in zip(numbers, cells[1:])):
        return None
    degrees, percent, total, used = numbers
    # What cannot be is not known.
    if degrees is not None:
        degrees = celsius(degrees * 1000.0)
    if percent is not None and not 0.0 <= percent <= 100.0:
        percent = None
    return gpu_entry("nvidia", cells[0], degrees, percent, total, used)


def used_percent(used, available):
    """The share in use as `df` has it: of what is used and what users may still have, rounded up.

    Blocks that are kept for root count neither as used nor as free.
    """
    whole = used + available
    return -(-100 * used // whole) if whole > 0 else None


def parse_last(output):
    """Boots of `last -x -F reboot shutdown` (newest first) with their causes."""
    date = re.compile(r"\b([A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4})\b")
    records = []
    for line in output.splitlines():
        found = date.search(line)
        if found and line.split(" ", 1)[0] in ("reboot", "shutdown"):
            records.append((line.split(" ", 1)[0], found.group(1)))
    boots, causes = [], {}
    for (kind, moment), before in zip(records, records[1:] + [None]):
        if kind != "reboot":
            continue
        if before is None:
            cause = ("unknown", "no older record")
        elif before[0] == "shutdown":
            cause = ("shutdown", "shut down in order at " + before[1])
        else:
            cause = ("unclean", "no shutdown on record: power loss, reset or crash")
        boots.append(moment)
        causes[moment] = {"cause": cause[0], "detail": cause[1]}
    return boots, causes


def parse_journal(output):
    """Boots of `journalctl --list-boots`, newest first, in the format of `last -F`."""
    found = set()
    for line in output.splitlines():
        # A line names its first and its last entry; the first is the boot.
        first = re.search(r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\b", line)
        if first:
            found.add(datetime.datetime.strptime(first.group(), "%Y-%m-%d %H:%M:%S"))
    return [moment.strftime("%a %b %d %H:%M:%S %Y") for moment in sorted(found, reverse=True)]


class Agent:
    """Puts the answer together from what is quick to read and what the threads have found."""

    def __init__(self, machine):
        self.machine = machine
        self.cpu = Background(machine.cpu_percent, 2.0, 15.0)
        self.temperatures = Background(machine.temperatures, 2.0, 15.0)
        self.gpus = Background(machine.gpus, 5.0, 20.0)
        self.disk = Background(machine.root_disk, 10.0, 60.0)
        # Apart from `/`: a network disk that hangs must not hide the other one.
        self.models_disk = Background(machine.models_disk, 10.0, 60.0)
        self.boots = Background(machine.boots, 300.0, 1800.0)
        self.threads = [self.cpu, self.temperatures, self.gpus]
        self.threads += [self.disk, self.models_disk, self.boots]

    def start(self):
        for thread in self.threads:
            thread.start()
        return self

    def wait_ready(self, seconds):
        """Waits until each thread has read once, so that the first answer is already whole."""
        deadline = time.monotonic() + seconds
        for thread in self.threads:
            thread.ready.wait(max(0.0, deadline - time.monotonic()))

    def answer(self):
        machine = self.machine
        gpus = self.gpus.value() or []
        temperatures = dict(self.temperatures.value() or {})
        for gpu in gpus:
            if gpu["temperature_celsius"] is not None:
                temperatures["gpu%d" % gpu["index"]] = gpu["temperature_celsius"]
        hottest = highest(gpu["temperature_celsius"] for gpu in gpus)
        if hottest is not None:
            temperatures["gpu"] = hottest
        recent_boots, reboot_causes = self.boots.value() or ([], {})
        return {
            "agent_version": VERSION,
            "hostname": machine.hostname(),
            "uptime_seconds": machine.uptime(),
            "boot_time": machine.boot_time(),
            "temperatures": temperatures,
            "memory": machine.memory(),
            "load_avg": machine.load(),
            "cpu_percent": self.cpu.value(),
            # The busiest of several.
            "gpu_percent": highest(gpu["percent"] for gpu in gpus),
            "gpus": gpus,
            "disk": self.disk.value(),
            "models_disk": self.models_disk.value(),
            "recent_boots": recent_boots,
            "reboot_causes": reboot_causes,
        }


class Handler(BaseHTTPRequestHandler):
    server_version = "fleet-metrics/" + VERSION
    sys_version = ""
    protocol_version = "HTTP/1.1"
    timeout = CONNECTION_SECONDS

    def do_GET(self):
        if self.path.split("?", 1)[0] != "/metrics":
            return self.reply(404, {"error": "not found; try /metrics"})
        return self.reply(200, self.server.agent.answer())

    do_HEAD = do_GET

    def refuse(self):
        self.reply(405, {"error": "only GET and HEAD"}, {"Allow": "GET, HEAD"})

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = refuse

    def reply(self, status, content, headers=()):
        body = json.dumps(content, allow_nan=False).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        # One request a connection: an idle one would hold a thread for nothing.
        self.send_header("Connection", "close")
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        """Nothing per request: a poll every ten seconds would fill the journal."""


class Server(HTTPServer):
    """A thread a connection, with a bound on both their number and their lifetime."""

    request_queue_size = 64

    def __init__(self, address, agent, seconds=CONNECTION_SECONDS, most=MAX_CONNECTIONS):
        host, port = address
        # No address given: every one, of both families where the kernel has IPv6.
        both = not host and socket.has_ipv6 and os.path.exists("/proc/net/if_inet6")
        self.address_family = socket.AF_INET6 if both or ":" in host else socket.AF_INET
        self.agent = agent
        self._seconds = seconds
        self._most = most
        self._lock = threading.Lock()
        self._open = {}  # socket -> when it was accepted, oldest first
        HTTPServer.__init__(self, ("::" if both else host, port), Handler)

    def server_bind(self):
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        # Not HTTPServer.server_bind: it asks DNS for our own name, which may hang.
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = self.server_address[:2]

    def process_request(self, request, client_address):
        with self._lock:
            if len(self._open) >= self._most:
                self._cut(next(iter(self._open)))
            self._open[request] = time.monotonic()
        work = threading.Thread(target=self._serve, args=(request, client_address), daemon=True)
        work.start()

    def _serve(self, request, client_address):
        try:
            self.finish_request(request, client_address)
        except OSError:
            pass  # the client went away or was cut off
        finally:
            with self._lock:
                self._open.pop(request, None)
            self.shutdown_request(request)

    def _cut(self, request):
        """Ends a connection from outside its thread, which then cleans up (lock held)."""
        self._open.pop(request, None)
        try:
            request.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def service_actions(self):
        # Called twice a second: a client that drips bytes resets each socket timeout, not this.
        oldest = time.monotonic() - self._seconds
        with self._lock:
            for request in [r for r, since in self._open.items() if since < oldest]:
                self._cut(request)

    def handle_error(self, request, client_address):
        """Nothing: a broken request is the client's affair."""


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(prog="fleet_metrics.py", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--port",
        type=int,
        default=os.environ.get("PORT") or DEFAULT_PORT,
        help="TCP port (default: $PORT, else %d)" % DEFAULT_PORT,
    )
    parser.add_argument("--listen", default="", help="address to listen on (default: all)")
    parser.add_argument("--root", default="/", help="folder to read /proc, /sys and /etc below")
    parser.add_argument("--once", action="store_true", help="print one answer and exit")
    parser.add_argument("--version", action="version", version=VERSION)
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parse_arguments(arguments)
    agent = Agent(Machine(options.root)).start()
    if options.once:
        agent.wait_ready(5.0)
        time.sleep(2.5)  # the processor's share needs two samples
        print(json.dumps(agent.answer(), indent=2))
        return 0
    try:
        server = Server((options.listen, options.port), agent)
    except OSError as error:
        print("fleet-metrics: port %s: %s" % (options.port, error), file=sys.stderr)
        return 1
    # From another thread: shutdown() waits for the loop, which a signal handler interrupts.
    stop = lambda *_: threading.Thread(target=server.shutdown).start()  # noqa: E731
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    print("fleet-metrics %s on port %d" % (VERSION, server.server_port), flush=True)
    server.serve_forever(poll_interval=0.5)
    return 0


if __name__ == "__main__":
    sys.exit(main())

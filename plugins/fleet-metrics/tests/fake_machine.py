"""A made-up machine in a temporary folder, and stand-ins for the tools the agent calls."""

import os
import stat
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

MEMINFO = """MemTotal:       32768000 kB
MemFree:         1024000 kB
MemAvailable:   16384000 kB
Active(anon):      10240 kB
SwapTotal:       2048000 kB
SwapFree:        1536000 kB
HugePages_Total:       0
"""

LAST = """reboot   system boot  6.1.0-18-amd64   Mon Sep 23 10:11:12 2024   still running
shutdown system down  6.1.0-18-amd64   Mon Sep 23 10:10:01 2024 - Mon Sep 23 10:11:12 2024  (00:01)
reboot   system boot  6.1.0-18-amd64   Thu Sep 19 08:00:00 2024 - Mon Sep 23 10:10:01 2024 (4+02:10)
reboot   system boot  6.1.0-18-amd64   Tue Sep  3 07:00:00 2024 - Thu Sep 19 08:00:00 2024 (16+01:00)

wtmp begins Tue Sep  3 07:00:00 2024
"""

TWO_GPUS = """NVIDIA GeForce RTX 4090, 61, 12, 24564, 8123
NVIDIA, the other, 74, 93, 24564, [N/A]
"""


class MachineTest(unittest.TestCase):
    """Each test has an empty root, and a PATH with nothing on it but its own stubs."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = os.path.join(folder.name, "root")
        self.bin = os.path.join(folder.name, "bin")
        os.makedirs(self.root)
        os.makedirs(self.bin)
        self.set_environment("PATH", self.bin)
        self.set_environment("OLLAMA_MODELS", None)

    def set_environment(self, name, value):
        before = os.environ.get(name)

        def put(text):
            os.environ.pop(name, None)
            if text is not None:
                os.environ[name] = text

        self.addCleanup(put, before)
        put(value)

    def write(self, path, content):
        full = self.root + path
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w", encoding="utf-8") as file:
            file.write(content)

    def stub(self, name, body):
        """A tool on PATH. The shell is named in full, for PATH has nothing else."""
        path = os.path.join(self.bin, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write("#!/bin/sh\n" + body)
        os.chmod(path, os.stat(path).st_mode | stat.S_IXUSR)

    def printing(self, name, text):
        self.stub(name, "/bin/cat <<'END'\n" + text + "END\n")

    def full_machine(self):
        """Linux on Intel with two NVIDIA cards, models in their usual place."""
        self.write("/proc/sys/kernel/hostname", "gpu-box\n")
        self.write("/proc/uptime", "93784.25 700000.00\n")
        self.write("/proc/stat", "cpu  100 0 100 800 0 0 0 0 0 0\nbtime 1790000000\n")
        self.write("/proc/meminfo", MEMINFO)
        self.write("/proc/loadavg", "1.25 0.75 0.50 2/345 6789\n")
        self.sensor("hwmon0", "nvme", {"temp1": ("Composite", "39850")})
        self.sensor(
            "hwmon1",
            "coretemp",
            {"temp1": ("Package id 0", "58000"), "temp2": ("Core 0", "66000")},
        )
        self.zone(0, "acpitz", "27800")
        self.zone(1, "x86_pkg_temp", "57000")
        os.makedirs(self.root + "/usr/share/ollama/.ollama/models")
        self.printing("nvidia-smi", TWO_GPUS)
        self.printing("last", LAST)

    def sensor(self, folder, name, readings):
        base = "/sys/class/hwmon/" + folder
        self.write(base + "/name", name + "\n")
        for sensor, (label, value) in readings.items():
            self.write(base + "/" + sensor + "_label", label + "\n")
            self.write(base + "/" + sensor + "_input", value + "\n")

    def zone(self, number, kind, value):
        base = "/sys/class/thermal/thermal_zone%d" % number
        self.write(base + "/type", kind + "\n")
        self.write(base + "/temp", value + "\n")

"""Where a process spends its CPU, by the names of functions. Standard library only; samples with `perf`."""

import re
import shutil
import subprocess

HINT = "hot spots are left out: install `perf` (Debian: apt-get install linux-perf; Fedora: dnf install perf)"
SHOWN = 15


def hotspots(pid, seconds, folder):
    """The functions that were found running most often, as lines of text, or why there are none."""
    perf = shutil.which("perf")
    if not perf:
        return [HINT]
    data = folder / "perf.data"
    # A clock and not a counter of cycles: virtual machines often have none. User space only, which needs no rights.
    record = [perf, "record", "--quiet", "--event", "cpu-clock:u", "--freq", "997", "--pid", str(pid), "--output", data]
    recorded = subprocess.run([*record, "--", "sleep", str(seconds)], capture_output=True, text=True)
    report = [perf, "report", "--quiet", "--stdio", "--no-children", "--sort", "symbol", "--input", data]
    reported = subprocess.run(report, capture_output=True, text=True)
    if recorded.returncode or reported.returncode:
        error = (recorded.stderr or reported.stderr).strip().splitlines()
        return [f"hot spots are left out: perf says: {error[-1] if error else 'nothing'}"]
    lines = []
    for line in reported.stdout.splitlines():
        found = re.match(r"\s*([\d.]+)%\s+\[\.\]\s+(.+?)(?:\s+-\s+-)?\s*$", line)
        if found:
            lines.append(f"{float(found[1]):5.1f} %  {found[2][:100]}")
    return lines[:SHOWN] or ["hot spots are left out: perf found the process idle"]

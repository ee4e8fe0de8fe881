#!/usr/bin/env bash
# Glances 4.5.8 (PyPI; psutil 7.2.2, Python 3.11): where several clients ask its web server, it answers now and then that the
# processors are 0.0 % busy and 0.0 % idle at the same time, on a machine whose processors are all busy. psutil keeps the last
# reading for each thread, and the web server answers in whichever thread is free, so that an answer from a thread that has
# not read before has nothing to compare with. `percpu`, in the same answer, says 100.0 for each processor.
#
# Seen: cpu.total 0.0, cpu.idle 0.0, percpu [100.0, 100.0] while /proc/stat says 100 % busy.
#
# So a plugin cannot take 0 for "nothing to do": plugins/glances takes an answer without any share for unknown.
#
# Installs glances[web]==4.5.8 into a folder of its own, keeps each processor busy for less than a minute, and asks on loopback.
# Needs python3 with venv, Linux, and a package index. Ends with 0 if it is still so, with 1 if Glances has changed.
set -euo pipefail

port=${PORT:-16210}
work=$(mktemp -d)
pids=()
cleanup() {
    for pid in "${pids[@]}"; do
        kill "$pid" 2>/dev/null || true
    done
    sleep 1
    for pid in "${pids[@]}"; do
        kill -KILL "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    rm -rf "$work"
}
trap cleanup EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet 'glances[web]==4.5.8'

for _ in $(seq "$(nproc)"); do
    (while :; do :; done) &
    pids+=($!)
done
HOME=$work "$work/venv/bin/glances" -w -B 127.0.0.1 -p "$port" --disable-webui --disable-check-update \
    >"$work/log" 2>&1 &
pids+=($!)

"$work/venv/bin/python" - "$port" <<'END'
import concurrent.futures
import json
import sys
import time
import urllib.request


def ask():
    with urllib.request.urlopen("http://127.0.0.1:%s/api/4/all" % sys.argv[1], timeout=10) as answer:
        return json.load(answer)


def ticks():
    with open("/proc/stat", encoding="ascii") as file:
        numbers = [int(number) for number in file.readline().split()[1:9]]
    return sum(numbers), numbers[3] + numbers[4]


deadline = time.monotonic() + 30
while True:
    try:
        ask()
        break
    except OSError:
        if time.monotonic() > deadline:
            sys.exit("Glances did not start")
        time.sleep(0.5)

seen = False
with concurrent.futures.ThreadPoolExecutor(8) as clients:
    for _ in range(4):
        before = ticks()
        time.sleep(8)
        answers, after = list(clients.map(lambda _: ask(), range(8))), ticks()
        busy = 100 * (1 - (after[1] - before[1]) / (after[0] - before[0]))
        print("busy by /proc/stat: %.0f %%" % busy)
        zeros = [one for one in answers if one["cpu"]["total"] == 0 and one["cpu"]["idle"] == 0]
        if zeros and busy > 80:
            percpu = [one["total"] for one in zeros[0]["percpu"]]
            print("Glances, in %d of 8 answers: total 0.0, idle 0.0, percpu %s" % (len(zeros), percpu))
            seen = True
sys.exit(0 if seen else "Glances no longer says 0.0 for busy and idle alike")
END

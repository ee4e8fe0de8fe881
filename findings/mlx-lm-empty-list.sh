#!/usr/bin/env bash
# mlx_lm.server answers GET /v1/models with status 200, type application/json and no body at all, where the folder of
# downloaded models does not exist yet. Its /health is 200 beside that.
#
# Version: mlx-lm 0.32.2 with mlx 0.32.4 for the processor, Python 3.11, on Linux.
# Why it matters here: a poll that asks for the list first sees an answer that is not one (InvalidResponse) from a server
# that works. docs/backends.md says to set healthPath: /health, which is then what decides.
#
# What it does: installs that version into a temporary folder, starts the server on loopback without a model, as its manual
# allows, and asks it twice: without the folder hub in HF_HOME, and with an empty one. Nothing of this project runs.
#
# Output seen on 1 December 2026:
#   without the folder:   /health 200, /v1/models 200 with 0 bytes
#   with an empty folder: /health 200, /v1/models 200 with 30 bytes: {"object": "list", "data": []}
#   as described
#
# Ends with 0 if it is so, with 1 if the behaviour has changed, with 2 if it could not be tried.
# Takes some minutes and 500 MB of disk. Needs bash, curl and Python 3.10 or newer.
set -euo pipefail

work=$(mktemp -d)
pids=()
end() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    rm -rf "$work"
}
trap end EXIT
fail() { echo "cannot be tried: $1" >&2; exit 2; }

python3 -m venv "$work/venv" || fail "no Python with venv"
"$work/venv/bin/pip" install --quiet 'mlx-lm==0.32.2' 'mlx[cpu]==0.32.4' >"$work/pip.log" 2>&1 || fail "$(tail -n 3 "$work/pip.log")"

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
mkdir "$work/home"
HF_HOME="$work/home" HF_HUB_OFFLINE=1 "$work/venv/bin/mlx_lm.server" --host 127.0.0.1 --port "$port" >"$work/server.log" 2>&1 &
pids+=($!)
server="http://127.0.0.1:$port"
for _ in $(seq 120); do curl -sf -m 5 -o /dev/null "$server/health" && break; sleep 1; done
curl -sf -m 5 -o /dev/null "$server/health" || fail "$(tail -n 3 "$work/server.log")"

ask() { # prints: status with N bytes
    : >"$work/list"
    curl -s -m 20 -o "$work/list" -w '%{http_code}' "$server/v1/models" || true
    echo " with $(($(wc -c <"$work/list"))) bytes"
}
health() { curl -s -m 20 -o /dev/null -w '%{http_code}' "$server/health"; }
without="/health $(health), /v1/models $(ask)"
echo "without the folder:   $without"
mkdir "$work/home/hub"
with="/health $(health), /v1/models $(ask): $(cat "$work/list")"
echo "with an empty folder: $with"
if [ "$without" = "/health 200, /v1/models 200 with 0 bytes" ] &&
    [[ $with = "/health 200, /v1/models 200 with "*': {"object": "list", "data": []}' ]]; then
    echo "as described"
else
    echo "changed"
    exit 1
fi

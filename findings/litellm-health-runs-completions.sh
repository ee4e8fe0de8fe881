#!/usr/bin/env bash
# LiteLLM's GET /health runs one completion of every configured model at its provider, each time it is asked.
#
# Version: litellm 1.108.7 (the proxy), Python 3.11, on Linux.
# Why it matters here: a monitor that asks /health every 10 s with two models runs 17,280 completions a day.
# docs/backends.md says what to ask instead.
#
# What it does: installs that version into a temporary folder, starts a stand-in for a provider on loopback that counts
# what it is asked, starts the proxy with two models in front of it, and asks the proxy. Nothing else of this project runs.
#
# Output seen on 1 December 2026:
#   at start:                     0 completions
#   3 x /v1/models:               0 completions
#   3 x /health/liveliness:       0 completions
#   3 x /health/readiness:        0 completions
#   3 x /health:                  6 completions
#   keys of /health: healthy_count healthy_endpoints unhealthy_count unhealthy_endpoints
#   without a key: /health/liveliness 200, /health/readiness 200, /v1/models 401, /health 401
#   as described
#
# Ends with 0 if it is so, with 1 if the behaviour has changed, with 2 if it could not be tried.
# Takes some minutes and 1 GB of disk, most of it for the installation. Needs bash, curl and Python 3.10 or newer.
set -euo pipefail

version=1.108.7
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
# prisma is what the proxy wants for its answer 401; without it a missing key is answered with 500
"$work/venv/bin/pip" install --quiet "litellm[proxy]==$version" prisma >"$work/pip.log" 2>&1 || fail "$(tail -n 3 "$work/pip.log")"

cat >"$work/provider.py" <<'PY'
import http.server, json, sys
count = 0
class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def answer(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        self.answer(count if self.path == "/count" else {"object": "list", "data": []})
    def do_POST(self):
        global count
        count += self.path.endswith("/chat/completions")
        self.rfile.read(int(self.headers.get("content-length", 0)))
        message = {"role": "assistant", "content": "hi"}
        self.answer({"id": "1", "object": "chat.completion", "created": 1, "model": "m",
                     "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
                     "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}})
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
with open(sys.argv[1], "w") as file: file.write(str(server.server_port))
server.serve_forever()
PY
python3 "$work/provider.py" "$work/port" &
pids+=($!)
for _ in $(seq 50); do [ -s "$work/port" ] && break; sleep 0.1; done
provider="http://127.0.0.1:$(cat "$work/port")" || fail "the stand-in does not listen"

cat >"$work/config.yaml" <<YAML
model_list:
  - {model_name: a, litellm_params: {model: openai/a, api_base: "$provider/v1", api_key: none}}
  - {model_name: b, litellm_params: {model: openai/b, api_base: "$provider/v1", api_key: none}}
YAML
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
key="sk-$(python3 -c 'import secrets; print(secrets.token_hex(32))')"
LITELLM_MASTER_KEY=$key LITELLM_LOCAL_MODEL_COST_MAP=True LITELLM_TELEMETRY=False \
    "$work/venv/bin/litellm" --config "$work/config.yaml" --host 127.0.0.1 --port "$port" >"$work/proxy.log" 2>&1 &
pids+=($!)
proxy="http://127.0.0.1:$port"
for _ in $(seq 120); do curl -sf -m 5 -o /dev/null "$proxy/health/liveliness" && break; sleep 1; done
curl -sf -m 5 -o /dev/null "$proxy/health/liveliness" || fail "$(tail -n 3 "$work/proxy.log")"

count() { curl -sf -m 5 "$provider/count"; }
ask() { curl -sf -m 60 -H "Authorization: Bearer $key" "$proxy$1"; }
code() { curl -s -m 60 -o /dev/null -w '%{http_code}' "$proxy$1"; }
changed=0
expect() { # what was asked, completions expected, completions seen
    printf '%-28s  %s completions\n' "$1:" "$3"
    [ "$2" = "$3" ] || { echo "  changed: $2 were expected"; changed=1; }
}
before=$(count)
expect "at start" 0 "$before"
for try in "/v1/models 0" "/health/liveliness 0" "/health/readiness 0" "/health 6"; do
    path=${try% *}
    before=$(count)
    for _ in 1 2 3; do ask "$path" >"$work/answer"; done
    expect "3 x $path" "${try#* }" $(($(count) - before))
done
keys=$(python3 -c 'import json, sys; print(*sorted(json.load(open(sys.argv[1]))))' "$work/answer")
echo "keys of /health: $keys"
case " $keys " in
*" healthy_endpoints "*" unhealthy_endpoints "*) ;;
*) echo "  changed: healthy_endpoints and unhealthy_endpoints were expected"; changed=1 ;;
esac
open="/health/liveliness $(code /health/liveliness), /health/readiness $(code /health/readiness)"
open="$open, /v1/models $(code /v1/models), /health $(code /health)"
echo "without a key: $open"
[ "$open" = "/health/liveliness 200, /health/readiness 200, /v1/models 401, /health 401" ] || { echo "  changed"; changed=1; }
[ $changed = 0 ] && echo "as described"
exit $changed

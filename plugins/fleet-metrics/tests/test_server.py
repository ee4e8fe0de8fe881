"""The agent over real HTTP on loopback, with clients that behave and clients that do not."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

from fake_machine import MachineTest

import fleet_metrics
from fleet_metrics import Agent, Machine, Server

HERE = os.path.dirname(os.path.abspath(__file__))


def shape(value):
    """Keys and types, all numbers alike: what a client may rely on."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return "number"
    return type(value).__name__


class ServerTest(MachineTest):
    def serve(self, seconds=5.0, most=16, host="127.0.0.1", ready=5.0):
        self.agent = Agent(Machine(self.root)).start()
        self.agent.wait_ready(ready)
        server = Server((host, 0), self.agent, seconds=seconds, most=most)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        self.port = server.server_port

    def request(self, path="/metrics", method="GET", host="127.0.0.1"):
        connection = http.client.HTTPConnection(host, self.port, timeout=5)
        self.addCleanup(connection.close)
        connection.request(method, path)
        response = connection.getresponse()
        return response, response.read()

    def stall(self, first=b""):
        client = socket.create_connection(("127.0.0.1", self.port), timeout=5)
        self.addCleanup(client.close)
        client.sendall(first)
        return client


class Answers(ServerTest):
    def test_the_recorded_answer_is_what_a_full_machine_gives(self):
        self.full_machine()
        self.serve()
        # The processor's share is a difference: move the clock ticks and read again.
        self.write("/proc/stat", "cpu  180 0 120 900 0 0 0 0 0 0\nbtime 1790000000\n")
        deadline = time.monotonic() + 10
        while self.agent.cpu.value() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        response, body = self.request()
        self.assertEqual(response.status, 200)
        self.assertEqual(response.getheader("Content-Type"), "application/json")
        answer = json.loads(body)
        with open(os.path.join(HERE, "answer-current.json"), encoding="utf-8") as file:
            recorded = json.load(file)
        self.assertEqual(shape(answer), shape(recorded))
        # The disks are those of the machine that runs the test; all else is made up above.
        for key in ("disk", "models_disk"):
            answer.pop(key), recorded.pop(key)
        self.assertEqual(answer, recorded)

    def test_every_key_of_the_contract_is_there_on_an_empty_machine(self):
        self.serve()
        answer = json.loads(self.request()[1])
        with open(os.path.join(HERE, "answer-older-agent.json"), encoding="utf-8") as file:
            self.assertLessEqual(set(json.load(file)), set(answer))
        self.assertIsNone(answer["gpu_percent"])
        self.assertIsNone(answer["memory"])

    def test_paths_and_methods(self):
        self.serve()
        self.assertEqual(self.request("/metrics?x=1")[0].status, 200)
        for path in ("/", "/metrics/", "/metricsx", "/../etc/passwd", "/%2e%2e/"):
            self.assertEqual(self.request(path)[0].status, 404, path)
        response, body = self.request(method="HEAD")
        self.assertEqual((response.status, body), (200, b""))
        self.assertGreater(int(response.getheader("Content-Length")), 100)
        self.assertEqual(self.request(method="POST")[0].status, 405)

    def test_both_address_families_by_default(self):
        self.serve(host="")
        self.assertEqual(self.request()[0].status, 200)
        if os.path.exists("/proc/net/if_inet6"):
            self.assertEqual(self.request(host="::1")[0].status, 200)


class Clients(ServerTest):
    def test_a_slow_tool_delays_no_answer(self):
        for tool in ("nvidia-smi", "last", "journalctl"):
            self.stub(tool, "/bin/sleep 30\n")
        self.serve(ready=0)
        times = []
        for _ in range(20):
            began = time.monotonic()
            self.assertEqual(self.request()[0].status, 200)
            times.append(time.monotonic() - began)
        # The promise is 50 ms. The slowest has leave to wait for a processor that is busy
        # elsewhere, but not for a tool.
        self.assertLess(sorted(times)[10], 0.05)
        self.assertLess(max(times), 1.0)

    def test_many_at_once(self):
        self.full_machine()
        self.serve()
        statuses = []

        def work():
            for _ in range(5):
                statuses.append(self.request()[0].status)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        self.assertEqual(statuses, [200] * 40)

    def test_stalled_clients_keep_nobody_out_and_threads_stay_few(self):
        self.serve(most=4)
        before = threading.active_count()
        stalled = [self.stall(b"GET /metrics HT") for _ in range(40)]
        for _ in range(5):
            self.assertEqual(self.request()[0].status, 200)
        time.sleep(0.3)
        self.assertLessEqual(threading.active_count(), before + 4)
        self.assertEqual(stalled[0].recv(1), b"", "the oldest was cut off")

    def test_a_client_that_drips_is_cut_off(self):
        self.serve(seconds=0.5)
        client = self.stall(b"GET /metrics HTTP/1.1\r\n")
        began = time.monotonic()
        with self.assertRaises(OSError):
            while time.monotonic() - began < 10:
                client.sendall(b"X: y\r\n")
                time.sleep(0.1)
        self.assertLess(time.monotonic() - began, 5)

    def test_garbage_is_answered_or_dropped(self):
        self.serve()
        for first in (b"\x00\xff\r\n\r\n", b"GET\r\n\r\n", b"GET /metrics HTTP/9.9\r\n\r\n"):
            self.stall(first).recv(100)
        self.stall(b"GET /" + b"a" * 100000).close()
        self.assertEqual(self.request()[0].status, 200)


class Process(MachineTest):
    def start(self, *arguments, **environment):
        process = subprocess.Popen(
            [sys.executable, "-I", fleet_metrics.__file__, "--root", self.root] + list(arguments),
            env=dict(os.environ, **environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            universal_newlines=True,
        )
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def test_it_serves_and_ends_on_sigterm(self):
        process = self.start("--listen", "127.0.0.1", "--port", "0")
        port = int(process.stdout.readline().rsplit(" ", 1)[1])
        with urllib.request.urlopen("http://127.0.0.1:%d/metrics" % port, timeout=5) as response:
            self.assertEqual(response.status, 200)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(5), 0)

    def test_a_taken_port_is_said(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen(1)
            port = taken.getsockname()[1]
            process = self.start("--listen", "127.0.0.1", PORT=str(port))
            self.assertEqual(process.wait(10), 1)
            self.assertIn("port %d" % port, process.stdout.read())

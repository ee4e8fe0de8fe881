"""The API server without kubectl: fast enough to create and watch thousands of objects. Standard library only."""

import base64
import calendar
import http.client
import json
import re
import ssl
import tempfile
import threading
import time
import urllib.parse

from stack import StackError


class Api:
    SERVERS = "/apis/ollama-fleet.io/v1alpha1/namespaces/default/ollamaservers"

    def __init__(self, kubeconfig):
        text = kubeconfig.read_text()

        def field(name):
            return re.search(rf"^\s*{name}:\s*(\S+)\s*$", text, re.M)[1]

        self.address = urllib.parse.urlsplit(field("server")).netloc
        authority = base64.b64decode(field("certificate-authority-data")).decode()
        self.context = ssl.create_default_context(cadata=authority)
        with tempfile.NamedTemporaryFile() as pair:
            pair.write(base64.b64decode(field("client-certificate-data")))
            pair.write(b"\n" + base64.b64decode(field("client-key-data")))
            pair.flush()
            self.context.load_cert_chain(pair.name)

    def connection(self, timeout=60):
        return http.client.HTTPSConnection(self.address, context=self.context, timeout=timeout)

    def call(self, connection, method, path, body=None):
        text = None if body is None else json.dumps(body)
        connection.request(method, path, text, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        data = answer.read()
        if answer.status >= 300:
            raise StackError(f"{method} {path}: {answer.status}: {data.decode(errors='replace')[:500]}")
        return data

    def get(self, path):
        return self.call(self.connection(), "GET", path)


class Watch:
    """Follows Ready of all servers from now on, in a thread of its own."""

    def __init__(self, api):
        self.ready = {}
        # When a server was first Ready, and when Ready changed last.
        self.first_ready = {}
        self.changed = {}
        # Of each object that changed since this was cleared: seconds that its status before had stood.
        self.confirmed = {}
        self._heartbeats = {}
        self._api = api
        self._version = json.loads(api.get(f"{Api.SERVERS}?limit=1"))["metadata"]["resourceVersion"]
        threading.Thread(target=self._run, daemon=True).start()

    def not_ready(self):
        return sum(ready != "True" for ready in list(self.ready.values()))

    def _run(self):
        while True:
            try:
                connection = self._api.connection(timeout=None)
                connection.request("GET", f"{Api.SERVERS}?watch=1&resourceVersion={self._version}")
                for line in connection.getresponse():
                    self._see(json.loads(line)["object"])
            except (OSError, http.client.HTTPException, ValueError, KeyError):
                # The server ends a watch every few minutes, and answers otherwise while it stops: go on from the last object.
                time.sleep(0.05)

    def _see(self, server):
        now = time.monotonic()
        name = server["metadata"]["name"]
        self._version = server["metadata"]["resourceVersion"]
        self._confirm(name, server.get("status", {}).get("lastHeartbeatTime"))
        conditions = server.get("status", {}).get("conditions", [])
        ready = next((is_["status"] for is_ in conditions if is_["type"] == "Ready"), "Unknown")
        if ready == "True":
            self.first_ready.setdefault(name, now)
        if self.ready.get(name) != ready:
            # In this order: whoever sees the state finds its time.
            self.changed[name] = now
            self.ready[name] = ready

    def _confirm(self, name, heartbeat):
        if heartbeat:
            # Whole seconds, in UTC.
            at = calendar.timegm(time.strptime(heartbeat[:19], "%Y-%m-%dT%H:%M:%S"))
            if name in self._heartbeats:
                self.confirmed[name] = at - self._heartbeats[name]
            self._heartbeats[name] = at

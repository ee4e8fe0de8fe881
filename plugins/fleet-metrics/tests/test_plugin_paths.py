"""That the paths of plugin.yaml find the same facts in this agent's answer and an older one's."""

import json
import os
import re
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))


def recorded(name):
    with open(os.path.join(HERE, name), encoding="utf-8") as file:
        return json.load(file)


def plugin_paths():
    """Value name -> its paths, of values that have paths. Reads only what this test needs; no YAML in the library."""
    with open(os.path.join(HERE, "..", "plugin.yaml"), encoding="utf-8") as file:
        text = re.sub(r"\\\n\s*", "", file.read())
    values = {}
    for part in text.split("- name: ")[1:]:
        if "expression:" in part:
            continue
        paths = [one or other for one, other in re.findall(r'"(\$[^"]+)"|(\$[\w.]+)', part)]
        values[part.split("\n", 1)[0]] = paths
    return values


def find(path, document):
    """The subset of RFC 9535 in use: `.name`, `[0]`, `[*]` and `['a','b']`."""
    nodes = [document]
    for name, brackets in re.findall(r"\.(\w+)|\[([^\]]+)\]", path[1:]):
        keys = [name] if name else [part.strip("'") for part in brackets.split(",")]
        found = []
        for node in nodes:
            if keys == ["*"]:
                found.extend(node if isinstance(node, list) else [])
                continue
            for key in keys:
                if isinstance(node, dict) and key in node:
                    found.append(node[key])
                elif isinstance(node, list) and key.isdigit() and int(key) < len(node):
                    found.append(node[int(key)])
        nodes = found
    return [node for node in nodes if node is not None]


def read(document):
    values = {}
    for name, paths in plugin_paths().items():
        matches = next(filter(None, (find(path, document) for path in paths)), None)
        if matches:
            values[name] = matches[0] if len(matches) == 1 else max(matches)
    return values


class PluginPaths(unittest.TestCase):
    def test_every_value_has_paths(self):
        values = plugin_paths()
        self.assertGreaterEqual(len(values), 16)
        self.assertLessEqual(len(values), 32)
        for name, paths in values.items():
            self.assertTrue(paths, name)
            self.assertRegex(name, r"^[a-z][A-Za-z0-9]{0,62}$")

    def test_this_agent(self):
        values = read(recorded("answer-current.json"))
        self.assertEqual(set(values), set(plugin_paths()), "every value is found")
        self.assertEqual(values["cpuTemperatureCelsius"], 58.0)
        self.assertEqual(values["gpuTemperatureCelsius"], 74.0)
        self.assertEqual(values["gpuPercent"], 93.0)

    def test_an_older_agent(self):
        values = read(recorded("answer-older-agent.json"))
        missing = set(plugin_paths()) - set(values)
        self.assertEqual(
            missing,
            {
                "diskUsedPercentTold",
                "modelsDiskTotal",
                "modelsDiskUsed",
                "modelsDiskUsedPercent",
                "vramTotal",
                "vramUsed",
            },
        )
        self.assertEqual(values["cpuTemperatureCelsius"], 55.0, "the hottest zone")
        self.assertEqual(values["gpuTemperatureCelsius"], 71.0, "the hottest card")
        self.assertEqual(values["bootTime"], "2026-09-21T14:13:21Z")

    def test_a_machine_without_a_gpu(self):
        document = recorded("answer-older-agent.json")
        document["temperatures"] = {"thermal_zone0": 41.0}
        document["gpu_percent"] = None
        values = read(document)
        self.assertNotIn("gpuPercent", values)
        self.assertNotIn("gpuTemperatureCelsius", values)
        self.assertEqual(values["cpuTemperatureCelsius"], 41.0)

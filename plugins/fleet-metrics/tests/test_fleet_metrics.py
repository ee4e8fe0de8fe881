"""What is read from a machine: files, tools, and above all what is missing or broken."""

import ast
import json
import os
import time
from types import SimpleNamespace
from unittest import mock

from fake_machine import LAST, MachineTest

import fleet_metrics
from fleet_metrics import Agent, Background, Machine


class Readings(MachineTest):
    def setUp(self):
        super().setUp()
        self.machine = Machine(self.root)

    def test_temperatures_prefer_the_package_sensor(self):
        self.full_machine()
        self.assertEqual(
            self.machine.temperatures(),
            {"cpu": 58.0, "thermal_zone0": 27.8, "thermal_zone1": 57.0},
        )

    def test_amd_processors_tell_the_die_not_the_fan_offset(self):
        self.sensor("hwmon2", "k10temp", {"temp1": ("Tctl", "80000"), "temp2": ("Tdie", "60500")})
        self.assertEqual(self.machine.temperatures(), {"cpu": 60.5})

    def test_two_sockets_tell_the_hotter(self):
        self.sensor("hwmon0", "coretemp", {"temp1": ("Package id 0", "51000")})
        self.sensor("hwmon1", "coretemp", {"temp1": ("Package id 1", "63000")})
        self.assertEqual(self.machine.temperatures()["cpu"], 63.0)

    def test_without_a_sensor_a_zone_of_the_processor_serves(self):
        self.zone(0, "acpitz", "20000")
        self.zone(3, "cpu-thermal", "48312")
        self.assertEqual(
            self.machine.temperatures(), {"cpu": 48.3, "thermal_zone0": 20.0, "thermal_zone3": 48.3}
        )

    def test_a_zone_of_the_board_is_not_called_the_processor(self):
        self.zone(0, "acpitz", "20000")
        self.assertEqual(self.machine.temperatures(), {"thermal_zone0": 20.0})

    def test_zones_of_rk3588_and_of_snapdragon_are_the_processor(self):
        # RK3588 with Linux 6.1 (Turing RK1); Snapdragon X Elite, 8cx Gen 3 and QCM6490, by their device trees.
        for zones in (
            ("soc-thermal", "bigcore0-thermal", "littlecore-thermal"),
            ("cpu0-0-top-thermal", "cpuss0-top-thermal"),
            ("cpu0-thermal", "cpu7-thermal"),
            ("cpu-0-0-thermal",),
            ("CPU-therm",),
        ):
            for number in range(5):
                self.zone(number, "gpu-thermal", "97000")
            for number, kind in enumerate(zones):
                self.zone(number, kind, "%d" % (45000 + number * 1000))
            self.assertEqual(self.machine.temperatures()["cpu"], 44.0 + len(zones), zones)

    def test_impossible_temperatures_are_unknown(self):
        for number, value in enumerate(("0", "-274000", "255000", "", "nan", "hot")):
            self.zone(number, "x86_pkg_temp", value)
        self.assertEqual(self.machine.temperatures(), {})

    def test_memory(self):
        self.write("/proc/meminfo", "MemTotal: 1048576 kB\nMemAvailable: 524288 kB\n")
        self.assertEqual(
            self.machine.memory(),
            {
                "total_mb": 1024.0,
                "used_mb": 512.0,
                "available_mb": 512.0,
                "swap_total_mb": None,
                "swap_used_mb": None,
            },
        )

    def test_cpu_percent_is_a_difference(self):
        self.write("/proc/stat", "cpu  100 0 100 700 100 0 0 0 0 0\n")
        self.assertIsNone(self.machine.cpu_percent())
        self.assertIsNone(self.machine.cpu_percent(), "no time has passed")
        self.write("/proc/stat", "cpu  200 0 125 750 125 0 0 0 0 0\n")
        self.assertEqual(self.machine.cpu_percent(), 62.5)

    def test_boot_time_without_btime_comes_from_the_uptime(self):
        self.write("/proc/uptime", "100.00 1.00\n")
        self.assertRegex(self.machine.boot_time(), r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")

    def test_nothing_there_is_unknown_and_not_zero(self):
        machine = self.machine
        self.assertEqual(machine.temperatures(), {})
        self.assertEqual(machine.gpus(), [])
        self.assertEqual(machine.boots(), ([], {}))
        for value in (
            machine.hostname(),
            machine.uptime(),
            machine.boot_time(),
            machine.memory(),
            machine.load(),
            machine.cpu_percent(),
            machine.models_disk(),
            Machine(self.root + "/no/such/root").root_disk(),
        ):
            self.assertIsNone(value)

    def test_garbage_everywhere_is_unknown(self):
        for path in ("stat", "meminfo", "loadavg", "uptime"):
            self.write("/proc/" + path, "\x00\xff garbage 1e999 nan\n")
        self.sensor("hwmon0", "coretemp", {"temp1": ("Package id 0", "warm")})
        for tool in ("nvidia-smi", "last", "journalctl"):
            self.printing(tool, "garbage, more, 1e999\n\n,,,,,,\n")
        agent = Agent(self.machine).start()
        agent.wait_ready(5)
        answer = agent.answer()
        json.dumps(answer, allow_nan=False)
        for key in ("uptime_seconds", "boot_time", "memory", "load_avg", "cpu_percent"):
            self.assertIsNone(answer[key], key)
        self.assertEqual(answer["temperatures"], {})
        self.assertEqual(answer["recent_boots"], [])

    def test_the_models_folder_can_be_named(self):
        self.set_environment("OLLAMA_MODELS", "/data/models")
        self.assertIsNone(self.machine.models_disk())
        os.makedirs(self.root + "/data/models")
        self.assertGreater(self.machine.models_disk()["total_gb"], 0)


class Gpus(MachineTest):
    def setUp(self):
        super().setUp()
        self.machine = Machine(self.root)

    def test_several_nvidia(self):
        self.full_machine()
        first, second = self.machine.gpus()
        self.assertEqual(first["name"], "NVIDIA GeForce RTX 4090")
        self.assertEqual((first["temperature_celsius"], first["percent"]), (61.0, 12.0))
        self.assertEqual((second["name"], second["index"]), ("NVIDIA, the other", 1))
        self.assertIsNone(second["memory_used_mb"], "[N/A] is unknown")

    def test_a_failing_tool_is_no_gpu(self):
        self.stub("nvidia-smi", "echo 'NVIDIA-SMI has failed'\nexit 9\n")
        self.assertEqual(self.machine.gpus(), [])

    def test_a_slow_tool_is_given_up_with_its_children(self):
        self.stub("nvidia-smi", "/bin/sleep 30\n")
        began = time.monotonic()
        self.assertEqual(self.machine.gpus(timeout=0.2), [])
        self.assertLess(time.monotonic() - began, 5)

    def test_amd_from_sysfs(self):
        card = "/sys/class/drm/card1/device"
        self.write(card + "/vendor", "0x1002\n")
        self.write(card + "/gpu_busy_percent", "37\n")
        self.write(card + "/mem_info_vram_total", "17163091968\n")
        self.write(card + "/hwmon/hwmon4/temp1_input", "49000\n")
        self.write("/sys/class/drm/card0/device/vendor", "0x8086\n")
        self.write("/sys/class/drm/card1-DP-1/device/vendor", "0x1002\n")
        (gpu,) = self.machine.gpus()
        self.assertEqual((gpu["temperature_celsius"], gpu["percent"]), (49.0, 37.0))
        self.assertEqual(gpu["memory_total_mb"], 16368.0)
        self.assertIsNone(gpu["memory_used_mb"])

    def test_rows_count_although_the_tool_ends_with_an_error(self):
        # Driver 535: code 14 and a last line about the infoROM, beside good rows.
        self.stub(
            "nvidia-smi",
            "echo 'NVIDIA A100-SXM4-80GB, 61, 97, 81920, 40321'\n"
            "echo 'WARNING: infoROM is corrupted at gpu 0000:41:00.0'\n"
            "exit 14\n",
        )
        (gpu,) = self.machine.gpus()
        self.assertEqual((gpu["temperature_celsius"], gpu["percent"]), (61.0, 97.0))

    def test_a_lost_gpu_does_not_hide_the_others(self):
        self.stub(
            "nvidia-smi",
            "echo 'NVIDIA L40S, 54, 9, 46068, 1235'\n"
            "echo 'NVIDIA L40S, [GPU is lost], [GPU is lost], [GPU is lost], [GPU is lost]'\n"
            "echo 'Unable to determine the device handle for GPU0000:82:00.0: Unknown Error'\n"
            "exit 15\n",
        )
        first, lost = self.machine.gpus()
        self.assertEqual(first["memory_used_mb"], 1235.0)
        self.assertEqual([lost[key] for key in ("temperature_celsius", "percent", "memory_used_mb")], [None] * 3)

    def test_a_sentence_with_commas_is_no_gpu(self):
        self.printing("nvidia-smi", "NVIDIA-SMI has failed, the driver, its version, the library, do not match\n")
        self.assertEqual(self.machine.gpus(), [])

    def test_a_gpu_in_instances_tells_its_temperature_and_not_its_load(self):
        # An H200 with MIG, driver 590.48.01, asked by a user without rights.
        self.printing("nvidia-smi", "NVIDIA H200, 36, [N/A], 143771, [Insufficient Permissions]\n")
        (gpu,) = self.machine.gpus()
        self.assertEqual((gpu["temperature_celsius"], gpu["memory_total_mb"]), (36.0, 143771.0))
        self.assertEqual((gpu["percent"], gpu["memory_used_mb"]), (None, None))

    def test_of_several_the_hottest_and_the_busiest_count_and_an_unknown_one_does_not(self):
        self.printing(
            "nvidia-smi",
            "NVIDIA H200, 36, [N/A], 143771, 16958\n"
            "NVIDIA H200, 84, 98, 143771, 134211\n"
            "NVIDIA H200, [Not Supported], [Not Supported], 143771, 4200\n",
        )
        agent = Agent(self.machine).start()
        agent.wait_ready(5)
        answer = agent.answer()
        self.assertEqual((answer["gpu_percent"], answer["temperatures"]["gpu"]), (98.0, 84.0))
        self.assertEqual(answer["temperatures"], {"gpu": 84.0, "gpu0": 36.0, "gpu1": 84.0})

    def test_impossible_numbers_of_a_gpu_are_unknown(self):
        self.printing("nvidia-smi", "NVIDIA GeForce RTX 3090, 255, 4294967295, 24576, 1\n")
        (gpu,) = self.machine.gpus()
        self.assertEqual((gpu["temperature_celsius"], gpu["percent"]), (None, None))


class Disks(MachineTest):
    """GNU df divides what is used by what is used and what users may have, and rounds up (coreutils, df.c)."""

    def disk(self, blocks, free, available):
        sizes = dict(f_blocks=blocks, f_bfree=free, f_bavail=available, f_frsize=4096)
        with mock.patch("os.statvfs", return_value=SimpleNamespace(**sizes)):
            return Machine(self.root).disk("/")

    def test_blocks_kept_for_root_are_neither_used_nor_free(self):
        # ext4 keeps 5 % for root: df of coreutils 9.1 shows 100 % here, where 95 % of the blocks are used.
        self.assertEqual(self.disk(1000, 50, 0)["used_percent"], 100)
        self.assertEqual(self.disk(1000, 500, 450)["used_percent"], 53)

    def test_it_is_rounded_up_as_df_does(self):
        self.assertEqual(self.disk(1000, 999, 999)["used_percent"], 1)
        self.assertEqual(self.disk(1000, 1000, 1000)["used_percent"], 0)
        self.assertEqual(self.disk(1000, 500, 500)["used_percent"], 50)

    def test_nothing_to_use_is_unknown(self):
        self.assertIsNone(self.disk(1000, 1000, 0)["used_percent"])

    def test_the_older_keys_are_as_they_were(self):
        disk = self.disk(1000 * 262144, 600 * 262144, 550 * 262144)
        del disk["used_percent"]
        self.assertEqual(disk, {"total_gb": 1000.0, "used_gb": 400.0, "free_gb": 550.0})


class Boots(MachineTest):
    def test_causes_are_keyed_by_the_boot(self):
        boots, causes = fleet_metrics.parse_last(LAST)
        self.assertEqual(
            boots,
            ["Mon Sep 23 10:11:12 2024", "Thu Sep 19 08:00:00 2024", "Tue Sep  3 07:00:00 2024"],
        )
        self.assertEqual([causes[boot]["cause"] for boot in boots], ["shutdown", "unclean", "unknown"])

    def test_the_journal_serves_where_last_is_missing(self):
        self.printing(
            "journalctl",
            "IDX BOOT ID                          FIRST ENTRY                 LAST ENTRY\n"
            " -1 0123456789abcdef0123456789abcdef Sun 2024-09-22 06:07:08 UTC Mon 2024-09-23 09:00:00 UTC\n"
            "  0 fedcba9876543210fedcba9876543210 Mon 2024-09-23 10:11:12 UTC—Mon 2024-09-23 11:00:00 UTC\n",
        )
        boots, causes = Machine(self.root).boots()
        self.assertEqual(boots, ["Mon Sep 23 10:11:12 2024", "Sun Sep 22 06:07:08 2024"])
        self.assertEqual(causes, {})


class Threads(MachineTest):
    def test_an_old_result_is_unknown_again(self):
        results = iter([1])

        def read():
            for value in results:
                return value
            time.sleep(60)  # a sensor that hangs

        background = Background(read, period=0.01, max_age=0.3).start()
        background.ready.wait(5)
        self.assertEqual(background.value(), 1)
        time.sleep(0.5)
        self.assertIsNone(background.value())

    def test_a_reading_that_fails_does_not_end_its_thread(self):
        results = iter([ValueError("once"), 2, 2, 2])

        def read():
            value = next(results, 2)
            if isinstance(value, Exception):
                raise value
            return value

        background = Background(read, period=0.01, max_age=5).start()
        deadline = time.monotonic() + 5
        while background.value() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        self.assertEqual(background.value(), 2)


class Compatibility(MachineTest):
    def test_the_agent_is_python_3_8(self):
        with open(fleet_metrics.__file__, encoding="utf-8") as file:
            ast.parse(file.read(), feature_version=(3, 8))

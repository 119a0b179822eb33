"""The files of /proc, /sys and /var that tell how a machine does, in a folder: a calm Jetson Orin Nano (JetPack 6).

calm = Orin(folder); calm.heat("tj-thermal", 91.0); Machine(folder) reads it
"""

from pathlib import Path

from agent.telemetry.host import Machine

ZONES = {
    "cpu-thermal": 48_031,
    "gpu-thermal": 47_250,
    "cv0-thermal": -256_000,  # switched off
    "soc0-thermal": 46_812,
    "tj-thermal": 48_031,
}
COOLING = {
    "pwm-fan": 3,  # a fan that turns holds nothing back
    "cpufreq-cpu0": 0,
    "devfreq-17000000.gpu": 0,
    "cpu-throttle-alert": 0,
    "gpu-throttle-alert": 0,
    "hot-surface-alert": 0,
}
WORKER = 4711  # process id of every worker, in the machine's /proc
OVER_CURRENT = "sys/class/hwmon/hwmon3/oc3_event_cnt"
_KIB = 1024


class Orin:
    """Change what a sensor says; the next look sees it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        for number, (name, millidegrees) in enumerate(ZONES.items()):
            self.write(f"sys/class/thermal/thermal_zone{number}/type", name)
            self.write(f"sys/class/thermal/thermal_zone{number}/temp", str(millidegrees))
        for number, (name, state) in enumerate(COOLING.items()):
            self.write(f"sys/class/thermal/cooling_device{number}/type", name)
            self.write(f"sys/class/thermal/cooling_device{number}/cur_state", str(state))
        self.write(OVER_CURRENT, "12")
        self.write("var/lib/nvpmodel/status", "pmode:0002\n")
        self.write("proc/stat", "cpu  100 0 100 1000 0 0 0 0 0 0\n")
        self.memory(available_bytes=4 * 2**30)

    def write(self, name: str, text: str) -> None:
        """One file."""
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")

    def heat(self, zone: str, celsius: float) -> None:
        """What a temperature sensor measures."""
        number = list(ZONES).index(zone)
        self.write(f"sys/class/thermal/thermal_zone{number}/temp", str(int(celsius * 1000)))

    def brake(self, device: str, state: int) -> None:
        """How much a cooling device does."""
        self.write(f"sys/class/thermal/cooling_device{list(COOLING).index(device)}/cur_state", str(state))

    def memory(self, *, available_bytes: int, private_bytes: int = 0) -> None:
        """Of the machine, and of the worker of what serves."""
        lines = ["MemTotal:        7802864 kB", "MemFree:          100000 kB"]
        self.write("proc/meminfo", "\n".join([*lines, f"MemAvailable:    {available_bytes // _KIB} kB"]))
        halves = private_bytes // 2 // _KIB
        self.write(f"proc/{WORKER}/smaps_rollup", f"Private_Clean:  {halves} kB\nPrivate_Dirty:  {halves} kB")


class Full(Machine):
    """This machine, if nothing were left of its memory, and workers were larger than those of tests."""

    def available_bytes(self) -> int:
        return 0

    def private_bytes(self, pid: int) -> int:
        return (super().private_bytes(pid) or 0) + 256 * 1024**2

"""Files of /sys and /var of three Jetson boards, as their kernels lay them out; `lay(folder, ORIN)` writes them.

Orin Nano with JetPack 6, AGX Xavier with JetPack 4, AGX Thor with JetPack 7.
"""

from collections.abc import Mapping
from pathlib import Path

ORIN: Mapping[str, str] = {
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
    "sys/devices/platform/bus@0/17000000.gpu/load": "437",
    "sys/class/hwmon/hwmon0/name": "cpu_thermal",
    "sys/class/hwmon/hwmon1/name": "ina3221",
    "sys/class/hwmon/hwmon1/in1_label": "VDD_IN",
    "sys/class/hwmon/hwmon1/in1_input": "5040",
    "sys/class/hwmon/hwmon1/curr1_input": "1200",
    "sys/class/hwmon/hwmon1/in2_label": "VDD_CPU_GPU_CV",
    "sys/class/hwmon/hwmon1/in2_input": "5032",
    "sys/class/hwmon/hwmon1/curr2_input": "240",
    "sys/class/hwmon/hwmon1/in3_label": "VDD_SOC",
    "sys/class/hwmon/hwmon1/in3_input": "5032",
    "sys/class/hwmon/hwmon1/curr3_input": "288",
    "sys/class/hwmon/hwmon1/in7_label": "sum of shunt voltages",
    "sys/class/hwmon/hwmon1/in7_input": "12",
    "sys/class/hwmon/hwmon2/name": "pwmfan",
    "sys/class/hwmon/hwmon2/pwm1": "84",
    "sys/class/devfreq/15340000.vic/cur_freq": "115200000",
    "sys/class/devfreq/15340000.vic/device/power/runtime_status": "active",
    "sys/class/devfreq/15480000.nvdec/cur_freq": "256000000",
    "sys/class/devfreq/15480000.nvdec/device/power/runtime_status": "suspended",
    "sys/class/devfreq/154c0000.nvenc/cur_freq": "192000000",
    "sys/class/devfreq/154c0000.nvenc/device/power/runtime_status": "suspended",
    "sys/class/devfreq/17000000.gpu/cur_freq": "306000000",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
    "sys/class/thermal/thermal_zone0/temp": "49187",
    "sys/class/thermal/thermal_zone1/type": "gpu-thermal",
    "sys/class/thermal/thermal_zone1/temp": "48093",
    "sys/class/thermal/thermal_zone2/type": "cv0-thermal",
    "sys/class/thermal/thermal_zone2/temp": "-256000",  # switched off
    "sys/class/thermal/thermal_zone8/type": "tj-thermal",
    "sys/class/thermal/thermal_zone8/temp": "51218",
    "sys/class/thermal/cooling_device0/type": "pwm-fan",
    "sys/class/thermal/cooling_device0/cur_state": "2",
    "sys/class/thermal/cooling_device1/type": "cpu-throttle-alert",
    "sys/class/thermal/cooling_device1/cur_state": "1",
    "var/lib/nvpmodel/status": "pmode:0002",
}

XAVIER: Mapping[str, str] = {
    "proc/device-tree/model": "Jetson-AGX\0",
    "sys/devices/gpu.0/load": "120",
    "sys/bus/i2c/drivers/ina3221x/1-0040/iio:device0/rail_name_0": "GPU",
    "sys/bus/i2c/drivers/ina3221x/1-0040/iio:device0/in_power0_input": "1839",
    "sys/bus/i2c/drivers/ina3221x/1-0040/iio:device0/rail_name_1": "CPU",
    "sys/bus/i2c/drivers/ina3221x/1-0040/iio:device0/in_power1_input": "612",
    "sys/bus/i2c/drivers/ina3221x/1-0040/iio:device0/rail_name_2": "SOC",
    "sys/bus/i2c/drivers/ina3221x/1-0040/iio:device0/in_power2_input": "1224",
    "sys/bus/i2c/drivers/ina3221x/1-0041/iio:device1/rail_name_0": "CV",
    "sys/bus/i2c/drivers/ina3221x/1-0041/iio:device1/in_power0_input": "0",
    "sys/bus/i2c/drivers/ina3221x/1-0041/iio:device1/rail_name_1": "VDDRQ",
    "sys/bus/i2c/drivers/ina3221x/1-0041/iio:device1/in_power1_input": "153",
    "sys/bus/i2c/drivers/ina3221x/1-0041/iio:device1/rail_name_2": "SYS5V",
    "sys/bus/i2c/drivers/ina3221x/1-0041/iio:device1/in_power2_input": "2188",
    "sys/devices/pwm-fan/cur_pwm": "255",
    "sys/class/devfreq/15340000.vic/cur_freq": "115200000",
    "sys/class/devfreq/154c0000.nvenc/cur_freq": "0",
    "sys/class/devfreq/15a80000.nvenc/cur_freq": "652800000",
    "sys/class/devfreq/17000000.gv11b/cur_freq": "114750000",
    "sys/class/thermal/thermal_zone0/type": "CPU-therm",
    "sys/class/thermal/thermal_zone0/temp": "38500",
    "sys/class/thermal/thermal_zone1/type": "GPU-therm",
    "sys/class/thermal/thermal_zone1/temp": "37500",
    "var/lib/nvpmodel/status": "pmode:0003 fmode:cool",
}

THOR: Mapping[str, str] = {
    "proc/device-tree/model": "NVIDIA Jetson AGX Thor Developer Kit\0",
    "sys/class/hwmon/hwmon3/name": "ina3221",
    "sys/class/hwmon/hwmon3/in1_label": "VDD_GPU",
    "sys/class/hwmon/hwmon3/in1_input": "19944",
    "sys/class/hwmon/hwmon3/curr1_input": "200",
    "sys/class/hwmon/hwmon3/in2_label": "VDD_CPU_SOC_MSS",
    "sys/class/hwmon/hwmon3/in2_input": "19944",
    "sys/class/hwmon/hwmon3/curr2_input": "400",
    "sys/class/hwmon/hwmon3/in3_label": "VIN_SYS_5V0",
    "sys/class/hwmon/hwmon3/in3_input": "5000",
    "sys/class/hwmon/hwmon3/curr3_input": "1000",
    "sys/class/hwmon/hwmon4/name": "ina238",
    "sys/class/hwmon/hwmon4/in1_input": "19936",
    "sys/class/hwmon/hwmon4/power1_input": "28400000",
    "sys/class/hwmon/hwmon5/name": "pwmfan",
    "sys/class/hwmon/hwmon5/pwm1": "0",
    "sys/class/devfreq/8188050000.vic/cur_freq": "116000000",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
    "sys/class/thermal/thermal_zone0/temp": "41250",
    "sys/class/thermal/thermal_zone1/type": "tj-thermal",
    "sys/class/thermal/thermal_zone1/temp": "42156",
    "var/lib/nvpmodel/status": "pmode:0000",
}


def lay(root: Path, board: Mapping[str, str]) -> Path:
    """Write the files; the folder."""
    for name, text in board.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root

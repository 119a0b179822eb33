"""Files of /sys and /var of three Jetson boards, as their kernels lay them out; `lay(folder, ORIN)` writes them.

Orin Nano with JetPack 6, AGX Xavier with JetPack 4, AGX Thor with JetPack 7. Names of rails, thermal zones and engines:
NVIDIA's Jetson Linux Developer Guide ("Platform Power and Performance", r32, r36.3, r38.2), issue 360 of
rbonghi/jetson_stats (where each board has its GPU load), pull request 7 of martinkersner/gtop (zones of a Xavier), the
README of swsususu/ThorFAN (zones and rails of a Thor; its GPU's zone cannot be read while the GPU is off).

LINES are lines of tegrastats as people published them; each says where.
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
    "sys/class/thermal/thermal_zone2/type": "AUX-therm",
    "sys/class/thermal/thermal_zone2/temp": "36500",
    "sys/class/thermal/thermal_zone3/type": "AO-therm",
    "sys/class/thermal/thermal_zone3/temp": "37000",
    "sys/class/thermal/thermal_zone4/type": "PMIC-Die",
    "sys/class/thermal/thermal_zone4/temp": "100000",  # always
    "sys/class/thermal/thermal_zone5/type": "Tboard_tegra",
    "sys/class/thermal/thermal_zone5/temp": "37000",
    "sys/class/thermal/thermal_zone6/type": "Tdiode_tegra",
    "sys/class/thermal/thermal_zone6/temp": "38250",
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
    "sys/class/thermal/thermal_zone1/type": "gpu-thermal",
    "sys/class/thermal/thermal_zone1/temp": "",  # cannot be read while the GPU is off
    "sys/class/thermal/thermal_zone2/type": "soc012-thermal",
    "sys/class/thermal/thermal_zone2/temp": "41000",
    "sys/class/thermal/thermal_zone3/type": "soc345-thermal",
    "sys/class/thermal/thermal_zone3/temp": "42156",
    "sys/class/thermal/thermal_zone4/type": "tj-thermal",
    "sys/class/thermal/thermal_zone4/temp": "42156",
    "var/lib/nvpmodel/status": "pmode:0000",
}

LINES: Mapping[str, str] = {
    # Issue 14 of GDWR/jetson_exporter: AGX Orin, JetPack 5.
    "agx-orin": "04-11-2025 10:36:27 RAM 4321/62801MB (lfb 1759x4MB) SWAP 19/31400MB (cached 0MB) CPU [0%@729,0%@729,"
    "0%@729,0%@729,0%@729,0%@729,0%@729,0%@729,0%@729,0%@729,0%@729,0%@729] EMC_FREQ 0%@2133 GR3D_FREQ 0%@[0,0] "
    "VIC_FREQ 729 APE 174 CV0@-256C CPU@44.562C Tboard@32C SOC2@40.093C Tdiode@33C SOC0@41.093C CV1@-256C GPU@-256C "
    "tj@44.343C SOC1@41.25C CV2@-256C VDD_GPU_SOC 2340mW/2340mW VDD_CPU_CV 390mW/390mW VIN_SYS_5V0 4025mW/4025mW "
    "NC 0mW/0mW VDDQ_VDD2_1V8AO 301mW/301mW NC 0mW/0mW",
    # A note on GPU tools in a public repository, 2026: Orin Nano Super, JetPack 6, `sudo jetson_clocks`.
    "orin-nano": "04-27-2026 15:00:54 RAM 779/7620MB (lfb 2x4MB) SWAP 0/3810MB (cached 0MB) CPU [0%@1344,0%@1344,"
    "0%@1344,0%@1344,0%@1344,0%@1344] GR3D_FREQ 0% cpu@50.125C soc2@49.125C soc0@49.25C gpu@50.562C tj@50.562C "
    "soc1@50.437C VDD_IN 6626mW/6625mW VDD_CPU_GPU_CV 1228mW/1230mW VDD_SOC 2380mW/2380mW",
    # Pull request 7 of martinkersner/gtop: AGX Xavier, JetPack 4.2, without units.
    "agx-xavier": "RAM 14700/15692MB (lfb 3x2MB) SWAP 898/8192MB (cached 23MB) CPU [0%@1190,0%@1190,0%@1190,0%@1190,"
    "0%@1190,0%@1190,0%@1190,0%@1190] EMC_FREQ 0% GR3D_FREQ 0% AO@30C GPU@30.5C Tboard@31C Tdiode@32C AUX@30.5C "
    "CPU@31.5C thermal@30.8C PMIC@100C GPU 463/463 CPU 618/618 SOC 2936/2936 CV 0/0 VDDRQ 309/309 SYS5V 3306/3306",
    # A guide to measuring on Thor in a public repository, 2026: AGX Thor, JetPack 7.1 (r38.4).
    "thor": "04-21-2026 15:50:52 RAM 105265/125772MB (lfb 34x4MB) CPU [0%@972,0%@972,0%@972,0%@972,0%@972,0%@972,"
    "1%@972,0%@972,0%@972,0%@972,0%@972,8%@972,0%@972,0%@972] EMC_FREQ 0%@2750 GR3D_FREQ @[314,314,314] "
    "NVENC0_FREQ @314 NVENC1_FREQ @314 NVDEC0_FREQ @314 NVDEC1_FREQ @314 NVJPG0_FREQ @314 VIC off OFA_FREQ @315 "
    "PVA0_FREQ off APE 300 cpu@37.343C tj@38.875C soc012@37.468C gpu@38.875C soc345@37.406C VDD_GPU 1962mW/1962mW "
    "VDD_CPU_SOC_MSS 5887mW/5887mW VIN_SYS_5V0 5635mW/5635mW VIN 19780mW/19780mW",
    # A test of WendyOS, 2026: AGX Thor, JetPack 7.2 (r39.2): now, on average, at most.
    "thor-7.2": "07-02-2026 13:45:44 RAM 36529/125749MB (lfb 12x4MB) SWAP 11/4096MB (cached 9MB) CPU [2%@972,1%@972,"
    "0%@972,0%@972,0%@972,0%@972,0%@972,0%@972,0%@972,0%@972,0%@972,0%@972,0%@972,2%@972] cpu@60.406C tj@63.281C "
    "soc012@58.468C gpu@62.906C soc345@63.281C VDD_GPU 37528mW/37528mW/37528mW "
    "VDD_CPU_SOC_MSS 18961mW/18961mW/18961mW VIN_SYS_5V0 18331mW/18331mW/18331mW VIN 87426mW/43713mW/87426mW",
}


def lay(root: Path, board: Mapping[str, str]) -> Path:
    """Write the files; the folder."""
    for name, text in board.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root

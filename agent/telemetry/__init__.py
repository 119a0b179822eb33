"""From one answered request to the manager's database.

    observations (agent.serving)
        |  driver      which release, which phase? cut at its change and at the end of a window (pace)
        v
    window             counts over the bins of the release's baseline, latency bins, feedback
        |  gauges      the machine meanwhile: the kernel's files and psutil (host), NVML, tegrastats
        v
    outbox             durable; sheds the oldest telemetry, never a report
        |  uplink      signed, compact, go-back-N over MQTT; forgets only what the manager acknowledged
        v
    manager

Read: window, pace, sysfs, strain, jetson, host, nvml, tegrastats, tegrastats_child, filling, gauges, host_mean, outbox,
uplink, driver.
"""

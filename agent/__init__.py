"""The device's side: take what the fleet assigns, prove it, serve it, tell how it does.

    manager --MQTT--> inbox --> update (verify, fetch, self-test, swap, probation) --> serving
       ^                          |                                                      |
       '------ MQTT ---- uplink <-+-- outbox <-- telemetry (windows, host) <-- observations

Read: settings, errors, identity, enrolment, then update/, serving/, telemetry/ (each tells its own flow), and last
what holds them together: presence, inbox, control, watchdog, state_folder, daemon, doctor, __main__.
"""

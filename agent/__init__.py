"""The device side: enrol, update, serve, watch, tell.

    enrolment -> presence            who this device is, and that it lives
    update/                          announcement -> ... -> report
    serving/                         requests of applications -> answers
    telemetry/                       observations -> windows -> manager

Start with `daemon.py`: it builds every part. `update/lifecycle.py` names every phase of an update.
"""

"""Known devices: how one comes in, what it was told, whether it is still there.

enrolment -> assigning -> announcer        let in, told what to run, told again until it has heard
liveness -> watch                          silence has a meaning and a time limit
"""

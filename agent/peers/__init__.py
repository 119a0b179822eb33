"""Devices of one site bring a release there once: each serves the sealed chunks that it has to the others.

    swarm --ask--> desk --signed, HTTP--> manager: whose turn it is, who has what
      |                 '--> passport     certificate of this device, for TLS on both sides
      |--turn--> the sources outside the site (agent/update/sources)
      '--held--> client --mutual TLS--> door of another device --> its chunk store

Nobody is believed: a chunk is what its name says, whoever brings it. Off unless manager and device both want it.
Read: passport, desk, door, client, swarm, driver.
"""

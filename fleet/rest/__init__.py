"""The manager's REST interface from the caller's side: for `fleet.client`, `fleet.system` and the command line.

    calls         what is asked: method, path, body                  (pure)
    resources     devices, models, rollouts ...: methods to calls    (pure)
    transport     calls to answers, blocking or awaited              (network)
    release_door  what publishing needs of the manager
    signing       first keys, and publishing, as `flotilla` does it
    embedded      a manager on a thread of this process

I/O: none.
"""

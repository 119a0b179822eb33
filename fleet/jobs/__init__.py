"""What `fleet.system` stands on: the words of the original system over an embedded manager.

    records  devices, versions, jobs as its callers know them    (pure)
    book     what the manager has no place for, durable          (disk)
    lease    one embedded manager for all parts of a program

I/O: none.
"""

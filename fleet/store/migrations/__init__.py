"""How the database became what it is: one file per step in `versions/`, oldest first; `env.py` runs them.

    0001_first -> ...

`tables.py` is always the form that the last step leads to; a test compares the two.
"""

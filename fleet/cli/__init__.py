"""The operator's command line: a client of the manager's REST interface and nothing else.

    __main__ (table of commands) -> grammar, shell (options, output, errors) -> session (where, as whom)
        -> api (requests) -> devices, audit, tokens, ... (one module for each noun)

`flotilla --help` imports only `__main__` and `grammar`; a command imports its own module. Read in that order.
stdout is data, stderr is words.
"""

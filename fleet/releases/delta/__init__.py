"""Deltas between two model files, made where a release is published (docs/delta.md).

    pairing     which old tensor each new one comes from
    fitting     the prediction that leaves the least to tell; low_rank: a product of two thin matrices
    encoding    all of it in one stream; full where that is less
    account     what each method cost, for people
    snapping    the change to the last release, rounded to a grid before anything is signed; snap_gate: if it may be
    offering    deltas of a release: made, proved, sealed, described
    cellar      what was published on this machine, so that deltas can be made from it

`shared/delta` reads the streams.
"""

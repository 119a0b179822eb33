"""The new model file out of the old one and a small stream (docs/delta.md).

    split       where the tensors lie in a file; all other bytes are its skeleton
    layout      the head of the stream: for each tensor of the new file, how it comes about
    numbers     bit patterns as integers in the order of their values, and back
    prediction  what a tensor is expected to be, from the old one and a few parameters
    contexts    how large an error to expect where, and which elements are coded together
    coding      blocks of integers and bytes to bytes and back, in bounds
    rebuild     the stream and the old file -> the new file, a tile at a time

Nothing here trusts the stream: any bytes give a file or a `DeltaError`, in bounded memory. Whether the file is
the right one, its digest in the signed manifest says. Streams are made by `fleet/releases/delta`.
"""

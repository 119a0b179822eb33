"""Bytes that one Python package needs for a new file where the old one is known; the last word printed is the number.

python delta_codecs.py hdiffpatch|zipnn|z4ai OLD NEW
"""

import sys
from pathlib import Path

name, old, new = sys.argv[1], Path(sys.argv[2]).read_bytes(), Path(sys.argv[3]).read_bytes()
if name != "hdiffpatch":  # they want two files of one length, a multiple of what an element takes
    length = -(-max(len(old), len(new)) // 4096) * 4096
    old, new = old.ljust(length, b"\0"), new.ljust(length, b"\0")
half = "fp16" in sys.argv[3]

if name == "hdiffpatch":
    import hdiffpatch

    made = hdiffpatch.diff(old, new, hdiffpatch.ZStdConfig(level=19, window=24), validate=False, big_cache_match=True)
elif name == "zipnn":
    import zipnn

    codec = zipnn.ZipNN(
        bytearray_dtype="float16" if half else "float32", delta_compressed_type="byte", threads=1, input_format="byte"
    )
    made = codec.compress(new, delta_second_data=old)
else:
    import z4ai

    made = z4ai.compress_delta(new, old, dtype="float16" if half else "float32", threads=1)
print(len(made))

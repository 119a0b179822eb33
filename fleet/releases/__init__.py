"""Releases: made and signed by people, kept and handed out by the manager.

    people     weights, inlining                                                    weights of other files, into one
               reading -> reference_data -> reference_run -> packing -> publish     ONNX file -> signed release
               keystore -> ceremony -> rotation, root_file                          keys, and what is signed with them
               pinning -> inspection                                                believe a manager only so far
    manager    online_keys -> repository -> shelf                                   verify, complete, keep
               depot (folder_depot, bucket_depot), leftovers                        sealed chunks, named by digest
               depot -> courier                                                     the same through the broker
               director -> bundling                                                 which device shall run what; by hand

The manager holds no key that can make a release; people hold no key that can assign one (docs/security.md).
Read `errors` first, then `documents` (what the signed documents look like); `wording` is how they are told.
"""

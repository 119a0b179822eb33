"""What both sides must agree on: names, bytes, keys, sketches, and the one door to MQTT.

    errors -> identifiers -> topics -> messages          what is said, and where
    planes -> chunking -> manifest -> signing            what is shipped, and who vouches for it
    onnx_scan -> probes -> sketches                      what a model is, and what is measured of it
    clock, durable, mqtt_link                            the few effects that both sides share

Nothing here imports `agent` or `fleet`. Read top to bottom.
"""

"""The embedded broker: amqtt inside the manager's process, with our own door and our own rules in front of it.

    connect_packet -> door -> embedded <- acl

A client is read, checked and bounded at the door before amqtt knows of it: amqtt would hand a session over by its name
before it asks for a password, and publish a last will anywhere. `acl` says who may write and read which topic.
"""

"""What a model costs on a device: artifacts, backends, the measuring protocol, tables.

Empty on purpose: the process of a session imports it and has to start fast.
"""

"""Where the qualities of a search are computed: in this process, or on the workers of Ray.

No module here imports ray before a cluster is asked for.
"""

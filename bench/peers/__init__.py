"""The programs that do the benchmark's work, each in a process of its own.

``python -m bench.peers.<name> <job.json>`` runs until SIGTERM. They share only
``job``, which needs nothing but fastavro, so that a peer can live in a virtual
environment of its own.
"""

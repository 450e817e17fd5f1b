"""The ``astra`` profile: ASTRA-sim 2.x with its analytical backends, event for event.

ASTRA-sim decides ties by the order in which events were registered, truncates every delay to a nanosecond and lets each
rank enter a collective alone. To give its exact cycle counts this profile replays a trace at that grain: the state is one
flat integer memory (:mod:`layout`), the model is a stack of kernels over it, in the layers of the original:

=============  =====================================================================
``events``     event list by tick, per-rank callback lists
``transport``  message matching, links, hops
``streams``    collectives cut in chunks, queues per dimension, algorithms
``workload``   node issue rules, resources in flight
``loop``       the loop over ticks
=============  =====================================================================

``config`` reads ASTRA-sim's own files, ``lower`` turns trace and configuration into memory, ``fold`` finds runs in which
all ranks do alike so that one stands for all, ``replay`` runs and reports. Semantics: spec in docs/astra.md; the source
of truth is ASTRA-sim 2.x itself (github.com/astra-sim), whose results the profile reproduces cycle for cycle.
"""

"""Why a run took as long as it did: the causal story, slack, where each rank's time went, and bounds.

:func:`distsim.analysis.explain.findings.explain` gives all of it. The times are those of the run; what *would* have been
(slack, bounds) follows from its activity network (:mod:`~distsim.analysis.activity`) and is first-order: every stream
keeps its order, and what is on the network takes the time that it took.
"""

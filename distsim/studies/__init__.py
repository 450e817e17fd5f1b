"""Floor 7: inquiries of ``distsim study``: one question each, answered by many runs or many kernels.

A study gives a :class:`~distsim.studies.finding.Finding`; :mod:`distsim.studies.shown` turns any into text, a document, a page
and tables. Its options and the call are ``distsim/cli/studies/NAME.py``. (``distsim sweep`` runs grids that a YAML file
describes; what the points mean is its user's to say.)
"""

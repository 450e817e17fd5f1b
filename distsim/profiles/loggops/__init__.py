"""``--network loggops``: LogGOPSim's model of ranks that share nothing but their own CPUs and NICs.

>>> from distsim.profiles.loggops.model import simulate
>>> from distsim.profiles.loggops.params import parameters
>>> from distsim.trace.goal import parse
>>> goal = b"num_ranks 2\\nrank 0 { s: send 1000b to 1 }\\nrank 1 { r: recv 1000b from 0 }"
>>> simulate(parse(goal, "two.goal"), parameters("loggops:L=2500,o=1500,g=1000,G=6")).finish.tolist()  # ps
[1500000, 11494000]
"""

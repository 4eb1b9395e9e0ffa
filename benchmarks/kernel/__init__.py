"""Does the kernel keep its deadline, whatever happens?

simulated.py asks in simulated time (replay.py is one kernel), real.py in real processes.
"""

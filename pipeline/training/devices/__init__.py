"""What a run trains on: a device and its precision, or several that share the rows of each step.

device.py names the one and says how it computes, launch.py starts a process for each, ranks.py adds up what they found.
Imported by training and members, imports models. Begin with device.py.
"""

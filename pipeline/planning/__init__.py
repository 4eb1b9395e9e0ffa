"""What the kernel runs next: the cost of a step, its gain, the plan, and the schedule that hands it out in chunks.

It may import inference, ensemble, data and competitions (tests/test_imports.py), and never the kernel, whose supervisor
drives the schedule, as simulate.py does in simulated time. No process and no clock here. Begin with steps.py, cost.py
and gain.py, then plan.py and schedule.py; forecast.py is the command that shows a plan without running it.
"""

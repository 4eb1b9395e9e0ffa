"""What Podium takes and what it gives, measured: a room per question, each command with its own result file.

README.md lists them; result.py writes every result, process.py runs commands as processes of their own and measures
them. Benchmarks import pipeline; nothing but tests imports them.
"""

import pipeline  # noqa: F401  (what it says of threads has to be said before NumPy is loaded)

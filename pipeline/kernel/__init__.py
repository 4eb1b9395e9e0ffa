"""The kernel in the scored rerun and its dress rehearsal: a supervisor, a worker process per device, the submission.

It may import planning, inference, ensemble, models, data and competitions, and none of the rooms that train
(tests/test_imports.py); the package ships what run.py imports, and nothing else. Read first the six files that give the
guarantee to end in time: planning/budget.py (`margin`), inputs.py (`deadline`), run.py (`_last_resort`), supervisor.py
(`_turn`, `_reserve`), planning/schedule.py (`_chunk`) and planning/plan.py (`_admitted`). docs/kernel.md is the map.
"""

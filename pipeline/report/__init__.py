"""The page: what the other stages measured, as one self-contained HTML file (reports/index.html).

It reads files and computes little. The stage `report` imports it, `make repro` growing.py, which shows a build while it
runs (progress.py, growing.html), and benchmarks draw with stability_section.py.
Begin with page.py, which names the sections; evidence.py reads their files, charts.py draws, and each *_section.py
prepares what one part of the page shows. page.html, diagnostics.html and training.html are the templates.
"""

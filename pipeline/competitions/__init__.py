"""What a competition is: columns, task type, classes and metric. One YAML file per competition.

Every other room may import this one; it imports none. The kernel ships task.py and metrics.py, which need NumPy alone.
Begin with task.py; metrics.py holds the table of metrics, registry.py finds and checks a YAML file.
"""

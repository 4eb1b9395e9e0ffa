"""Is the stack's score honest (honesty.py), and does the stage stay small on as many rows as the real one (size.py)?"""

"""What a fold model learns beside the rows of its own competition: rows from elsewhere, other tasks, teachers' answers.

extra.py and made.py check further rows and keep near duplicates of scored ones apart; auxiliary.py reads the tasks of
other competitions; teach.py asks the teachers, whose answers lessons.py finds for each row; learned.py puts a fold's
together. Imports what the room members may. Begin with learned.py.
"""

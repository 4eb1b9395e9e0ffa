"""Rows that a local decoder writes for `extra: {…, made: true}`: make rows.

prompt.py says what is asked, decoder.py asks a network through transformers, replies.py reads what it says, and
write.py does it batch by batch and goes on where it was stopped; rows.txt and judge.txt are the prompts where no other
is named. May import members/ and below; only stages do. Begin with prompt.py.
"""

"""Rows that a local decoder writes for `extra: {…, made: true}`: make rows.

order.py says what is wanted and carries it out, prompt.py what a decoder is asked, decoder.py asks it through
transformers, replies.py reads what it says, and write.py does it batch by batch and goes on where it was stopped;
rows.txt and judge.txt are the prompts where no other is named. May import members/ and below; only stages import it.
Begin with order.py.
"""

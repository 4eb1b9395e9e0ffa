"""What is learned between two commits: looks at a member that keep no model.

tries.py trains a fold on a slice, rates.py at a ladder of learning rates, profile.py tells where its time goes,
average.py what one average of the fold models would lose. May import members/ and below; only stages do. Begin with
tries.py.
"""

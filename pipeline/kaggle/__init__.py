"""The way to Kaggle and back: download, publish, submit and fetch scores, through the real kaggle CLI.

It stands above package and ledger; the stages download, publish, submit and sync_lb alone import it. Begin with
publish.py and submit.py, the two commands; preview.py is their --dry-run. dataset.py and upload.py bring the package,
push.py the kernel; sync.py fetches scores into the ledger. All calls go through cli.py, which follow.py, logged_cli.py
and credentials.py serve.
"""

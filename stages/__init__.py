"""One script per stage of dvc.yaml, and those that talk to Kaggle: read, one call, write."""

from pipeline.errors import stop_in_one_line

stop_in_one_line()

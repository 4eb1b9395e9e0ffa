"""One script per stage of dvc.yaml, and those that talk to Kaggle: read, one call, write."""

"""Parts of ``tools/notebooks.py``: sources, execution, checks."""

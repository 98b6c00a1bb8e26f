"""The campaigns of ``tools/hardening.py``, one file each, and what they share."""

"""Evidence on models and machines: parity, speed, what files hold, and models in other programs' formats."""

"""The verbs ``prepare``, ``query``, ``select`` and ``rank`` of ``lit-valuation``."""

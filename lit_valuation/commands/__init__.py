"""The verbs ``divide``, ``query``, ``select`` and ``rank`` of ``lit-valuation``."""

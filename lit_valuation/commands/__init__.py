"""The verbs of ``lit-valuation`` that are not Lightning's: arguments in, one call, closing lines out."""

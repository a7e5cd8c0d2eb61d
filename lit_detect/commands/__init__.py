"""The verbs of ``lit-detect`` that are not Lightning's: arguments in, one call, closing lines out."""

"""The verbs of ``lit-moe`` that are not Lightning's: arguments in, one call, closing lines out."""

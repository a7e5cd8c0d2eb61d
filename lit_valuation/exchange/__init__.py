"""Between organisations: queries and answers as files, a ledger of what crossed, and a ranking of the answers."""

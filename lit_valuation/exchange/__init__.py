"""The exchange between organisations: queries and answers as files, the ledger of what was sent, the ranking."""

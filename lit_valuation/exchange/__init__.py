"""What two organisations exchange: queries, answers, and a record of what was disclosed."""
